"""An object store per test, on the session's real S3 server."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from minio import Minio

from jetbridge.devstack.servers.s3 import S3Server
from jetbridge.xcom.settings import MIB, ObjectStoreSettings

PREFIX = "JETBRIDGE_OBJECT_STORE_"


@pytest.fixture
def store_settings(s3: S3Server) -> ObjectStoreSettings:
    """Return settings with buckets of this test alone, which do not exist yet."""
    own = uuid.uuid4().hex[:12]
    return ObjectStoreSettings.model_validate(
        {
            "endpoint_url": s3.endpoint_url,
            "region": s3.region,
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
            "xcom_bucket": f"xcom-{own}",
            "logs_bucket": f"logs-{own}",
            "key_prefix": "site-a",
            "part_size_bytes": 5 * MIB,
        }
    )


@pytest.fixture
def other_settings(store_settings: ObjectStoreSettings) -> Callable[..., ObjectStoreSettings]:
    """Return a function that makes the same settings with some changed."""

    def change(**changes: Any) -> ObjectStoreSettings:
        return ObjectStoreSettings.model_validate({**store_settings.model_dump(), **changes})

    return change


@pytest.fixture
def store_environment(store_settings: ObjectStoreSettings) -> dict[str, str]:
    """Return the settings as environment variables of a worker."""
    secret = store_settings.secret_key
    assert secret is not None
    values = {**store_settings.model_dump(exclude_none=True), "secret_key": secret.get_secret_value()}
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items()}


@pytest.fixture
def raw_client(s3: S3Server) -> Minio:
    """Return a client that is not ours, to look at and to damage what was stored."""
    scheme, _, address = s3.endpoint_url.partition("://")
    return Minio(address, s3.access_key, s3.secret_key, secure=scheme == "https", region=s3.region)


@pytest.fixture
def unused_address() -> Iterator[str]:
    """Yield an address that refuses connections, and cannot be given to anybody else meanwhile."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"
