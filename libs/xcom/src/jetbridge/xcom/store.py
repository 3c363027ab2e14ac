"""
Objects in one bucket: written with their SHA-256, verified when read, in bounded memory both ways.

Safe to create before a fork: each process makes its own client on first use.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO
from xml.etree import ElementTree as ET

import urllib3
from minio import Minio
from minio.error import MinioException

from jetbridge.xcom.client import NoCredentialsError, connect
from jetbridge.xcom.errors import (
    BucketMissingError,
    CorruptObjectError,
    CredentialsError,
    NotAnObjectStoreError,
    ObjectMissingError,
    ObjectStoreError,
    StoreUnavailableError,
    TruncatedObjectError,
)
from jetbridge.xcom.failures import answer_of, error_for
from jetbridge.xcom.settings import ObjectStoreSettings

_CHUNK_BYTES = 256 * 1024
_SHA256 = "sha256"
"""Name of the object metadata (``x-amz-meta-sha256``) that holds the hash in hex."""
_BUCKET_IS_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "OperationAborted"})
"""Answers to "make bucket" when another process was faster."""


@dataclass(frozen=True)
class StoredObject:
    """What is stored: ``bytes`` is its size, ``sha256`` its hash in hex, empty where it is not known."""

    bucket: str
    key: str
    bytes: int
    sha256: str
    modified_at: datetime | None = None

    @property
    def uri(self) -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"


class ObjectStore:
    """
    One bucket of an S3-compatible store.

    Every method raises a subclass of :class:`ObjectStoreError` whose text names bucket, key and endpoint.
    """

    def __init__(self, settings: ObjectStoreSettings, bucket: str) -> None:
        self.settings = settings
        self.bucket = bucket
        self._client: Minio | None = None
        self._client_pid = -1

    def put(
        self, key: str, source: BinaryIO, *, content_type: str = "application/octet-stream"
    ) -> StoredObject:
        """
        Store everything in ``source``, which is read twice: for its hash, then to send it.

        The hash is known before the first byte is sent, so it can be part of the object's metadata. The
        bucket is made if it is missing. A failed multipart upload leaves nothing behind.
        """
        size, sha256 = _measure(source)
        try:
            self._send(key, source, size, sha256, content_type)
        except BucketMissingError:
            self._make_bucket()
            self._send(key, source, size, sha256, content_type)
        return StoredObject(self.bucket, key, size, sha256)

    def get(
        self, key: str, target: BinaryIO, *, expected_bytes: int | None = None, sha256: str | None = None
    ) -> None:
        """
        Write the object into ``target``, emptied first, and verify size and hash.

        A connection that breaks on the way is retried from the start. What ``target`` holds after an
        error must not be used.
        """
        for tries_left in range(self.settings.retries, -1, -1):
            target.seek(0)
            target.truncate()
            try:
                received, digest = self._receive(key, target)
            except _BrokenTransferError as broken:
                if tries_left == 0:
                    raise StoreUnavailableError(self._place(key), str(broken)) from broken.__cause__
                continue
            self._verify(key, received, digest, expected_bytes, sha256)
            return

    def stat(self, key: str) -> StoredObject:
        """Return size and hash without the content."""
        with self._errors(key):
            found = self._connection.stat_object(self.bucket, key)
        headers = found.metadata or {}
        return StoredObject(
            self.bucket, key, found.size or 0, headers.get(f"x-amz-meta-{_SHA256}") or "", found.last_modified
        )

    def delete(self, key: str) -> None:
        """Delete the object; one that is not there (any more) is deleted already."""
        try:
            with self._errors(key):
                self._connection.remove_object(self.bucket, key)
        except (ObjectMissingError, BucketMissingError):
            return

    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects whose keys begin with ``prefix``, oldest first; none if there is no bucket."""
        try:
            with self._errors(prefix):
                found = list(self._connection.list_objects(self.bucket, prefix, recursive=True))
        except BucketMissingError:
            return []
        objects = [
            StoredObject(self.bucket, item.object_name, item.size or 0, "", item.last_modified)
            for item in found
            if item.object_name and item.last_modified
        ]
        return sorted(objects, key=lambda item: (item.modified_at, item.key))

    @property
    def _connection(self) -> Minio:
        # Two processes on one TLS connection would corrupt each other's stream, hence one client per pid.
        if self._client is None or self._client_pid != os.getpid():
            self._client, self._client_pid = connect(self.settings), os.getpid()
        return self._client

    def _send(self, key: str, source: BinaryIO, size: int, sha256: str, content_type: str) -> None:
        source.seek(0)
        with self._errors(key):
            written = self._connection.put_object(
                self.bucket,
                key,
                source,
                size,
                content_type=content_type,
                metadata={_SHA256: sha256},
                part_size=self.settings.part_size_bytes,
                num_parallel_uploads=1,  # each upload thread would hold one more part in memory
            )
        if not written.etag:  # a web page answers 200 to anything; S3 always names what it stored
            raise NotAnObjectStoreError(self._place(key), "no ETag in the answer to a write")

    def _receive(self, key: str, target: BinaryIO) -> tuple[int, str]:
        with self._errors(key):
            response = self._connection.get_object(self.bucket, key)
        received, digest = 0, hashlib.sha256()
        try:
            for chunk in response.stream(_CHUNK_BYTES, decode_content=False):
                received += len(chunk)
                digest.update(chunk)
                target.write(chunk)
        except urllib3.exceptions.HTTPError as exc:
            raise _BrokenTransferError(f"the connection broke after {received} bytes: {exc}") from exc
        except BaseException:
            response.close()  # half an answer is still in the connection
            raise
        response.release_conn()
        return received, digest.hexdigest()

    def _verify(
        self, key: str, received: int, digest: str, expected_bytes: int | None, sha256: str | None
    ) -> None:
        if expected_bytes is not None and received != expected_bytes:
            raise TruncatedObjectError(
                self._place(key), f"{received} bytes are stored, {expected_bytes} were written"
            )
        if sha256 is not None and digest != sha256:
            raise CorruptObjectError(self._place(key), f"SHA-256 is {digest}, was {sha256} when written")

    def _make_bucket(self) -> None:
        with self._errors(""):
            try:
                self._connection.make_bucket(self.bucket)
            except MinioException as exc:
                if answer_of(exc).code not in _BUCKET_IS_THERE:
                    raise

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (MinioException, urllib3.exceptions.HTTPError) as exc:
            raise error_for(exc)(self._place(key), answer_of(exc).detail) from exc
        except NoCredentialsError as exc:
            raise CredentialsError(self._place(key), str(exc)) from exc
        except ET.ParseError as exc:
            raise NotAnObjectStoreError(self._place(key), f"no XML: {exc}") from exc
        except ValueError as exc:  # minio's word for names that S3 does not allow
            raise ObjectStoreError(self._place(key), str(exc)) from exc

    def _place(self, key: str) -> str:
        return f"s3://{self.bucket}/{key} at {self.settings.endpoint_url}"


class _BrokenTransferError(Exception):
    """The answer began and did not end."""


def _measure(source: BinaryIO) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    source.seek(0)
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        digest.update(chunk)
    return size, digest.hexdigest()
