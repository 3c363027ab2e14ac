"""The connection to the object store: time-outs, retries, TLS and credentials."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)

from jetbridge.xcom.settings import ObjectStoreSettings

_BUSY = (500, 502, 503, 504)


def connect(settings: ObjectStoreSettings) -> Minio:
    """
    Return a client; nothing is sent yet. It belongs to this process: never use it after a fork.

    The region is always given, so that the client does not ask the store for it first.
    """
    endpoint = urlsplit(settings.endpoint_url)
    return Minio(
        endpoint.netloc,
        secure=endpoint.scheme == "https",
        region=settings.region,
        credentials=CheckedProvider(credentials(settings)),
        http_client=_pool(settings),
    )


def credentials(settings: ObjectStoreSettings) -> Provider:
    """Return where the keys come from, in the order that :class:`ObjectStoreSettings` documents."""
    if settings.access_key is not None and settings.secret_key is not None:
        return StaticProvider(settings.access_key, settings.secret_key.get_secret_value())
    if settings.access_key_file is not None and settings.secret_key_file is not None:
        return FileProvider(settings.access_key_file, settings.secret_key_file)
    # Off a cloud the metadata address swallows packets: the library's own client would wait for ever.
    quick = urllib3.PoolManager(timeout=urllib3.Timeout(total=2.0), retries=urllib3.Retry(1))
    return ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider(http_client=quick)])


class NoCredentialsError(Exception):
    """There are no keys to send; the text says where they were looked for."""


class CheckedProvider(Provider):
    """Tells "there are no keys" from a failure of the store: minio raises ``ValueError`` for many things."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def retrieve(self) -> Credentials:
        """Return the keys; raises :class:`NoCredentialsError`."""
        try:
            return self._provider.retrieve()
        except (ValueError, OSError, urllib3.exceptions.HTTPError) as exc:
            raise NoCredentialsError(str(exc)) from exc


class FileProvider(Provider):
    """Keys in two files, read for each request: a rotated secret is used at once."""

    def __init__(self, access_key_file: Path, secret_key_file: Path) -> None:
        self._files = (access_key_file, secret_key_file)

    def retrieve(self) -> Credentials:
        """Read both files; raises ``OSError``, which names the file, or ``ValueError``."""
        access_key, secret_key = (file.read_text().strip() for file in self._files)
        return Credentials(access_key, secret_key)


def _pool(settings: ObjectStoreSettings) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=settings.connect_timeout_seconds, read=settings.read_timeout_seconds),
        # A read that timed out is retried once only: the store got the request and is slow, not gone.
        retries=urllib3.Retry(
            total=settings.retries,
            read=min(settings.retries, 1),
            backoff_factor=0.2,
            backoff_jitter=0.1,
            status_forcelist=_BUSY,
            raise_on_status=False,
        ),
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(settings.ca_file) if settings.ca_file else certifi.where(),
    )
