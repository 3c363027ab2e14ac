"""
Which of our errors an exception of the S3 client stands for.

S3 says what is wrong with a code in an XML document. Some servers send that document as ``text/xml``,
which minio does not read: it raises ``InvalidResponseError`` with the text of the answer. So the code is
looked for there too, and where there is none (HEAD has no body) the HTTP status decides.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError

from jetbridge.xcom.errors import (
    AccessDeniedError,
    BucketMissingError,
    CredentialsError,
    ObjectMissingError,
    ObjectStoreError,
    StoreFullError,
    StoreUnavailableError,
)

_STATUS = re.compile(r"Response code: (\d{3})")
_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<]{1,300}?)\s*</Message>")

_CA_HINT = "; JETBRIDGE_OBJECT_STORE_CA_FILE names the authority to trust if it is not a public one"

_BY_CODE: dict[str, type[ObjectStoreError]] = {
    "NoSuchBucket": BucketMissingError,
    "NoSuchKey": ObjectMissingError,
    "InvalidAccessKeyId": CredentialsError,
    "SignatureDoesNotMatch": CredentialsError,
    "AuthorizationHeaderMalformed": CredentialsError,
    "ExpiredToken": CredentialsError,
    "InvalidToken": CredentialsError,
    "RequestTimeTooSkewed": CredentialsError,
    "AccessDenied": AccessDeniedError,
    "AllAccessDisabled": AccessDeniedError,
    "EntityTooLarge": StoreFullError,
    "InsufficientCapacity": StoreFullError,
    "QuotaExceeded": StoreFullError,
    "XMinioAdminBucketQuotaExceeded": StoreFullError,
    "XMinioStorageFull": StoreFullError,
    "InternalError": StoreUnavailableError,
    "ServiceUnavailable": StoreUnavailableError,
    "SlowDown": StoreUnavailableError,
    "RequestTimeout": StoreUnavailableError,
}
_BY_STATUS: dict[int, type[ObjectStoreError]] = {
    401: CredentialsError,
    403: AccessDeniedError,
    404: ObjectMissingError,
    408: StoreUnavailableError,
    413: StoreFullError,
    429: StoreUnavailableError,
    507: StoreFullError,
}


class Answer(NamedTuple):
    """What the server said: HTTP status and S3 code where known, and both with the message as text."""

    status: int | None
    code: str | None
    detail: str


def answer_of(error: Exception) -> Answer:
    """Return what the server said, whichever way minio wrapped it."""
    if isinstance(error, S3Error):
        status = error.response.status if error.response else None
        return Answer(status, error.code, f"{error.code}: {error.message}")
    if isinstance(error, ServerError):
        return Answer(error.status_code, None, str(error))
    if isinstance(error, InvalidResponseError):
        text = str(error)
        number, code, message = (_find(pattern, text) for pattern in (_STATUS, _CODE, _MESSAGE))
        detail = f"{code or f'HTTP {number}'}: {message or 'no message'}"
        return Answer(int(number) if number else None, code, detail)
    if isinstance(error, urllib3.exceptions.MaxRetryError):
        hint = _CA_HINT if isinstance(error.reason, urllib3.exceptions.SSLError) else ""
        return Answer(None, None, f"{error.reason}{hint}")
    return Answer(None, None, str(error))


def _find(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1] if match else None


def error_for(error: Exception) -> type[ObjectStoreError]:
    """Return the class that says what happened and what to do."""
    if isinstance(error, urllib3.exceptions.HTTPError):
        return StoreUnavailableError
    answer = answer_of(error)
    if answer.code in _BY_CODE:
        return _BY_CODE[answer.code]
    if answer.status is not None and answer.status not in _BY_STATUS and answer.status >= 500:
        return StoreUnavailableError
    return _BY_STATUS.get(answer.status or 0, ObjectStoreError)
