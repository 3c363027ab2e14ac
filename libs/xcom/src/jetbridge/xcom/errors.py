"""
Everything that can go wrong with the object store.

Each class says what happened and what to do; the message adds bucket, key and endpoint.
"""

from __future__ import annotations

from typing import ClassVar


class ObjectStoreError(Exception):
    """
    Base of all errors of this package.

    ``retryable`` says whether the same call can succeed later without anybody changing anything.
    """

    what: ClassVar[str] = "the object store refused the request"
    advice: ClassVar[str] = "See the store's own log for the reason"
    retryable: ClassVar[bool] = False

    def __init__(self, place: str, detail: str = "") -> None:
        self.place = place
        super().__init__(f"{self.what}: {place}{f' ({detail})' if detail else ''}. {self.advice}.")


class ObjectStoreSettingsError(ObjectStoreError):
    """A setting is missing or wrong."""

    what = "the object store is not configured"
    advice = "Set the variables in the environment of the worker"


class StoreUnavailableError(ObjectStoreError):
    """No connection, a time-out or a 5xx answer, after all retries."""

    what = "the object store cannot be reached"
    advice = (
        "Check JETBRIDGE_OBJECT_STORE_ENDPOINT_URL, the network and the store itself, then run the task again"
    )
    retryable = True


class CredentialsError(ObjectStoreError):
    """No credentials were found, or the store does not accept them."""

    what = "the object store does not accept the credentials"
    advice = (
        "Check JETBRIDGE_OBJECT_STORE_ACCESS_KEY and _SECRET_KEY (or the files or role in their place),"
        " JETBRIDGE_OBJECT_STORE_REGION and this machine's clock"
    )


class NotAnObjectStoreError(ObjectStoreError):
    """Something answers at the endpoint that does not speak S3."""

    what = "the endpoint does not answer like an S3 server"
    advice = "Check JETBRIDGE_OBJECT_STORE_ENDPOINT_URL: is it the address of a web console or a proxy?"


class AccessDeniedError(ObjectStoreError):
    """The store knows who asks and does not allow it."""

    what = "the object store denies access"
    advice = (
        "Allow this key to list, read, write and delete in that bucket, or check that it is the right key"
    )


class BucketMissingError(ObjectStoreError):
    """The bucket does not exist (writing would have made it)."""

    what = "the bucket does not exist"
    advice = "Check JETBRIDGE_OBJECT_STORE_XCOM_BUCKET and _LOGS_BUCKET; was the bucket deleted?"


class ObjectMissingError(ObjectStoreError):
    """Nothing is stored under that key any more."""

    what = "the object does not exist"
    advice = "It was deleted or has expired; run the task that wrote it again"


class StoreFullError(ObjectStoreError):
    """No room, or the object is larger than the store takes."""

    what = "the object store has no room for the object"
    advice = "Free space, raise the quota or write less"


class CorruptObjectError(ObjectStoreError):
    """The object's bytes are not those that were written: the SHA-256 differs."""

    what = "the object is corrupt"
    advice = "Its bytes changed after they were written; run the task that wrote it again"


class TruncatedObjectError(CorruptObjectError):
    """The object is shorter or longer than what was written."""

    what = "the object has the wrong size"


class BadReferenceError(ObjectStoreError):
    """An XCom that claims to be a reference and is none this version can follow."""

    what = "the XCom reference cannot be used"
    advice = "Upgrade this worker if a newer one wrote it; otherwise run the task that wrote it again"


class ForeignReferenceError(BadReferenceError):
    """A reference that leaves the bucket and prefix this worker is configured for."""

    what = "the XCom reference points outside this worker's XCom store and was not followed"
    advice = "Workers that exchange XComs need the same JETBRIDGE_OBJECT_STORE_XCOM_BUCKET and _KEY_PREFIX"
