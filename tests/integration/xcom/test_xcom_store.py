"""The object store against a real S3 server, and against servers that fail."""

from __future__ import annotations

import filecmp
import hashlib
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from jetbridge.xcom.errors import (
    AccessDeniedError,
    BucketMissingError,
    CorruptObjectError,
    CredentialsError,
    NotAnObjectStoreError,
    ObjectMissingError,
    ObjectStoreError,
    StoreUnavailableError,
    TruncatedObjectError,
)
from jetbridge.xcom.settings import MIB, ObjectStoreSettings
from jetbridge.xcom.store import ObjectStore

Change = Callable[..., ObjectStoreSettings]
KEY = "site-a/d/manual__2026-01-01T00%3A00%3A00/t/-1/return_value.0.json"


@pytest.fixture
def store(store_settings: ObjectStoreSettings) -> ObjectStore:
    return ObjectStore(store_settings, store_settings.xcom_bucket)


def read(store: ObjectStore, key: str, **expected: Any) -> bytes:
    target = BytesIO(b"what was there before")
    store.get(key, target, **expected)
    return target.getvalue()


def test_the_first_write_makes_the_bucket(store: ObjectStore, raw_client: Minio) -> None:
    assert not raw_client.bucket_exists(store.bucket)
    stored = store.put(KEY, BytesIO(b"value"))
    assert raw_client.bucket_exists(store.bucket)
    assert stored.uri == f"s3://{store.bucket}/{KEY}"
    assert read(store, KEY, expected_bytes=5, sha256=stored.sha256) == b"value"


def test_many_first_writers_at_once_all_succeed(store_settings: ObjectStoreSettings) -> None:
    stores = [ObjectStore(store_settings, store_settings.xcom_bucket) for _ in range(8)]
    start = threading.Barrier(len(stores))

    def write(number: int) -> None:
        start.wait()
        stores[number].put(f"k{number}", BytesIO(str(number).encode()))

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(write, range(len(stores))))
    assert [read(stores[0], f"k{number}") for number in range(len(stores))] == [
        str(number).encode() for number in range(len(stores))
    ]


def test_writers_of_one_key_leave_one_whole_value(store: ObjectStore) -> None:
    store.put(KEY, BytesIO(b"first"))
    values = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(len(values)) as pool:
        list(pool.map(lambda value: store.put(KEY, BytesIO(value)), values))
    assert read(store, KEY) in values


def test_size_and_hash_are_kept_with_the_object(store: ObjectStore) -> None:
    store.put(KEY, BytesIO(b"value"))
    found = store.stat(KEY)
    assert (found.bytes, found.sha256) == (5, hashlib.sha256(b"value").hexdigest())


def test_an_empty_object_can_be_stored(store: ObjectStore) -> None:
    assert store.put(KEY, BytesIO()).bytes == 0
    assert read(store, KEY, expected_bytes=0) == b""


@pytest.mark.parametrize("key", ["dag=é/run=a+b:c%2B d/t", "site/" + "x" * 200, "%2E%2E/k"])
def test_keys_arrive_as_they_were_given(store: ObjectStore, raw_client: Minio, key: str) -> None:
    store.put(key, BytesIO(b"value"))
    assert [item.object_name for item in raw_client.list_objects(store.bucket, recursive=True)] == [key]
    assert read(store, key) == b"value"


def test_deleting_twice_or_in_no_bucket_is_no_error(store: ObjectStore) -> None:
    store.delete(KEY)
    store.put(KEY, BytesIO(b"value"))
    store.delete(KEY)
    store.delete(KEY)
    with pytest.raises(ObjectMissingError, match=KEY):
        store.stat(KEY)


def test_listing_is_oldest_first_and_empty_without_a_bucket(store: ObjectStore) -> None:
    assert store.list("a/") == []
    for key in ("a/2", "b/1", "a/1"):
        store.put(key, BytesIO(b"value"))
    assert {item.key for item in store.list("a/")} == {"a/1", "a/2"}
    times = [item.modified_at for item in store.list("")]
    assert len(times) == 3
    assert times == sorted(times, key=str)


def test_a_missing_bucket_and_a_missing_object_are_told_apart(store: ObjectStore) -> None:
    with pytest.raises(BucketMissingError, match=store.bucket):
        read(store, KEY)
    store.put("another", BytesIO(b"value"))
    with pytest.raises(ObjectMissingError, match="run the task that wrote it again"):
        read(store, KEY)


def test_a_wrong_secret_and_an_unknown_key_are_named_and_not_printed(other_settings: Change) -> None:
    for changes in ({"secret_key": "not-the-secret"}, {"access_key": "nobody", "secret_key": "x"}):
        settings = other_settings(**changes)
        store = ObjectStore(settings, settings.xcom_bucket)
        with pytest.raises(CredentialsError, match=r"JETBRIDGE_OBJECT_STORE_ACCESS_KEY") as caught:
            store.put(KEY, BytesIO(b"value"))
        assert "not-the-secret" not in str(caught.value)
        with pytest.raises(CredentialsError):
            store.delete(KEY)
        with pytest.raises(AccessDeniedError):  # an answer to HEAD has no body, so no code
            store.stat(KEY)


def test_no_credentials_at_all_is_not_an_outage(other_settings: Change, tmp_path: Path) -> None:
    missing = tmp_path / "key"
    settings = other_settings(
        access_key=None, secret_key=None, access_key_file=missing, secret_key_file=missing
    )
    with pytest.raises(CredentialsError, match=str(missing)):
        ObjectStore(settings, settings.xcom_bucket).put(KEY, BytesIO(b"value"))


@pytest.mark.parametrize(
    ("damaged", "kind"),
    [
        (b"valu", TruncatedObjectError),
        (b"value and more", TruncatedObjectError),
        (b"eulav", CorruptObjectError),
    ],
)
def test_a_damaged_object_is_never_returned(
    store: ObjectStore, raw_client: Minio, damaged: bytes, kind: type[ObjectStoreError]
) -> None:
    stored = store.put(KEY, BytesIO(b"value"))
    raw_client.put_object(store.bucket, KEY, BytesIO(damaged), len(damaged))
    with pytest.raises(kind, match=KEY) as caught:
        read(store, KEY, expected_bytes=stored.bytes, sha256=stored.sha256)
    assert caught.type is kind


def test_a_large_object_travels_in_parts_and_bounded_memory(store: ObjectStore, tmp_path: Path) -> None:
    size, part = 48 * MIB, store.settings.part_size_bytes
    source_path, target_path = tmp_path / "source", tmp_path / "target"
    block = os.urandom(MIB)
    with source_path.open("wb") as source:
        for number in range(size // MIB):
            source.write(number.to_bytes(4, "big") + block[4:])
    store.put("first", BytesIO(b"x"))  # makes the bucket and the connection
    tracemalloc.start()
    try:
        with source_path.open("rb") as source, target_path.open("wb+") as target:
            stored = store.put(KEY, source)
            store.get(KEY, target, expected_bytes=size, sha256=stored.sha256)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * part
    assert filecmp.cmp(source_path, target_path, shallow=False)


class _FailingSource(BytesIO):
    """Can be measured, and breaks while it is sent."""

    reads_at_start = 0

    def seek(self, *args: int) -> int:
        self.reads_at_start += 1
        return super().seek(*args)

    def read(self, size: int | None = -1) -> bytes:
        if self.reads_at_start == 2 and self.tell() >= 6 * MIB:
            raise OSError("disk gone")
        return super().read(size)


def test_an_upload_that_breaks_leaves_no_object(store: ObjectStore) -> None:
    store.put("another", BytesIO(b"value"))
    with pytest.raises(OSError, match="disk gone"):
        store.put(KEY, _FailingSource(bytes(16 * MIB)))
    assert [item.key for item in store.list("")] == ["another"]


def test_nobody_listening_is_an_outage_that_names_the_address(
    other_settings: Change, unused_address: str
) -> None:
    store = ObjectStore(other_settings(endpoint_url=unused_address, retries=1), "bucket")
    operations: list[Callable[[], object]] = [
        lambda: store.put(KEY, BytesIO(b"value")),
        lambda: read(store, KEY),
        lambda: store.delete(KEY),
        lambda: store.stat(KEY),
        lambda: store.list(""),
    ]
    for operation in operations:
        with pytest.raises(StoreUnavailableError, match=unused_address):
            operation()


def test_parent_and_child_use_one_store_after_a_fork(store: ObjectStore) -> None:
    store.put("before", BytesIO(b"value"))  # the parent has an open connection when it forks
    child = os.fork()
    if child == 0:
        try:
            for number in range(20):
                store.put(f"child/{number}", BytesIO(b"child"))
            os._exit(0 if read(store, "before") == b"value" else 1)
        finally:
            os._exit(2)
    for number in range(20):
        store.put(f"parent/{number}", BytesIO(b"parent"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {read(store, f"child/{number}") for number in range(20)} == {b"child"}
    assert {read(store, f"parent/{number}") for number in range(20)} == {b"parent"}


class BrokenServer(ThreadingHTTPServer):
    """Answers 200 to everything and cuts the first ``cuts`` answers to GET short."""

    def __init__(self, cuts: int) -> None:
        self.cuts = cuts
        self.gets = 0
        super().__init__(("127.0.0.1", 0), _BrokenHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _BrokenHandler(BaseHTTPRequestHandler):
    server: BrokenServer

    def do_GET(self) -> None:
        self.server.gets += 1
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * (100 if self.server.gets <= self.server.cuts else 1000))

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>Welcome to the console</h1>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broken_server() -> Iterator[Callable[[int], BrokenServer]]:
    servers: list[tuple[BrokenServer, threading.Thread]] = []

    def start(cuts: int) -> BrokenServer:
        server = BrokenServer(cuts)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_transfer_that_is_cut_is_begun_again(
    other_settings: Change, broken_server: Callable[[int], BrokenServer]
) -> None:
    server = broken_server(2)
    store = ObjectStore(other_settings(endpoint_url=server.url, retries=2), "bucket")
    assert read(store, KEY) == b"x" * 1000
    assert server.gets == 3


def test_a_transfer_that_is_always_cut_is_an_outage(
    other_settings: Change, broken_server: Callable[[int], BrokenServer]
) -> None:
    server = broken_server(100)
    store = ObjectStore(other_settings(endpoint_url=server.url, retries=2), "bucket")
    with pytest.raises(StoreUnavailableError, match="broke after 100 bytes"):
        read(store, KEY)
    assert server.gets == 3


def test_a_web_page_that_says_yes_to_everything_is_no_object_store(
    other_settings: Change, broken_server: Callable[[int], BrokenServer]
) -> None:
    store = ObjectStore(other_settings(endpoint_url=broken_server(0).url), "bucket")
    with pytest.raises(NotAnObjectStoreError, match="JETBRIDGE_OBJECT_STORE_ENDPOINT_URL"):
        store.put(KEY, BytesIO(b"value"))
    with pytest.raises(NotAnObjectStoreError):
        store.list("")
