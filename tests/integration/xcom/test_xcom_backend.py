"""The backend with Airflow's own serialisation and a real S3 server."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs
import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.xcom import resolve_xcom_backend
from airflow.sdk.serde import allow_class
from airflow.serialization.stringify import stringify
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from minio import Minio
from pydantic import BaseModel

from jetbridge.xcom.backend import ObjectStoreXComBackend, xcom_store
from jetbridge.xcom.errors import (
    BadReferenceError,
    CorruptObjectError,
    ForeignReferenceError,
    ObjectMissingError,
    StoreUnavailableError,
    TruncatedObjectError,
)

COORDINATES = {"dag_id": "orders", "run_id": "manual__1+2:3", "task_id": "load.one", "map_index": 4}


class Result(NamedTuple):
    """What Airflow hands to ``deserialize_value``."""

    value: Any


@pytest.fixture(autouse=True)
def _worker(store_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in store_environment.items():
        monkeypatch.setenv(name, value)
    xcom_store.cache_clear()
    yield
    xcom_store.cache_clear()


def push(value: Any, key: str = "return_value") -> Any:
    """Return what reaches the plane, after the JSON it travels as."""
    return json.loads(
        json.dumps(ObjectStoreXComBackend.serialize_value(value, key=key, **COORDINATES))  # type: ignore[arg-type]
    )


def pull(document: Any) -> Any:
    return ObjectStoreXComBackend.deserialize_value(Result(document))


def through_stock_airflow(value: Any) -> Any:
    return BaseXCom.deserialize_value(Result(json.loads(json.dumps(BaseXCom.serialize_value(value)))))


class Model(BaseModel):
    name: str
    when: dt.datetime


@dataclasses.dataclass
class Row:
    region: str
    amount: float


@attrs.define
class Point:
    x: int
    y: list[int]


class Custom:
    """Brings its own serialisation, as Airflow's documentation describes."""

    def __init__(self, x: int) -> None:
        self.x = x

    def serialize(self) -> dict[str, Any]:
        return {"x": self.x}

    @staticmethod
    def deserialize(data: dict[str, Any], _version: int) -> Custom:
        return Custom(data["x"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture(autouse=True, scope="module")
def _allowed() -> None:
    for kind in (Model, Row, Point, Custom):
        allow_class(kind)


WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
VALUES = [
    None,
    "",
    0,
    False,
    10**30,
    1.5,
    "é日😀\x00\ud800",
    "x" * (2 * 1024 * 1024),
    [],
    {},
    {"a": [1, {"b": (2, {3})}], "": None},
    (1, (2, "three")),
    {1, 2},
    frozenset({"a"}),
    WHEN,
    WHEN.astimezone(ZoneInfo("Europe/Berlin")),
    dt.date(2026, 1, 2),
    dt.timedelta(days=1, microseconds=1),
    Decimal("1.10"),
    uuid.UUID(int=7),
    Model(name="n", when=WHEN),
    Row("north", 1.5),
    Point(1, [2]),
    Custom(9),
    [Row("north", 1.5), {"when": WHEN}],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}")
def test_what_stock_airflow_returns_is_what_this_backend_returns(value: Any) -> None:
    document = push(value)
    assert document["jetbridge.xcom"] == 1
    received = pull(document)
    assert received == through_stock_airflow(value)
    assert type(received) is type(through_stock_airflow(value))


@pytest.mark.parametrize("value", [b"bytes", object(), {"__classname__": "x"}])
def test_what_stock_airflow_refuses_is_refused_and_nothing_is_stored(value: Any, raw_client: Minio) -> None:
    with pytest.raises((TypeError, AttributeError)) as stock:
        BaseXCom.serialize_value(value)
    with pytest.raises(stock.type):
        push(value)
    assert not raw_client.bucket_exists(xcom_store().bucket)


_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.datetimes(timezones=st.just(dt.UTC))
    | st.timedeltas()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
)
_keys = st.text(st.characters(), max_size=8).filter(lambda key: not key.startswith("__"))
_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_keys, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=12,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # the store is the same for all examples, which is the point
@given(value=_values)
@example(value={"jetbridge.xcom": 1, "uri": "s3://other/x"})  # a value that looks like a reference
def test_any_value_survives_as_in_stock_airflow(value: Any) -> None:
    assert pull(push(value)) == through_stock_airflow(value)


def test_the_plane_learns_where_and_nothing_of_what() -> None:
    document = push({"card": "planted-marker-4711"})
    assert "planted-marker" not in json.dumps(document)
    assert set(document) == {"jetbridge.xcom", "uri", "bytes", "sha256", "encoding"}
    assert document["uri"].startswith(
        f"s3://{xcom_store().bucket}/site-a/orders/manual__1%2B2%3A3/load.one/4/return_value."
    )
    assert stringify(document) == document  # the UI shows it as it is


def test_the_object_can_be_checked_and_read_without_jetbridge(raw_client: Minio) -> None:
    document = push(["north", 1])
    bucket, _, key = document["uri"].removeprefix("s3://").partition("/")
    response = raw_client.get_object(bucket, key)
    assert json.loads(response.read()) == ["north", 1]
    response.close()
    found = raw_client.stat_object(bucket, key)
    assert (found.size, found.content_type) == (document["bytes"], "application/json")
    assert found.metadata is not None
    assert found.metadata["x-amz-meta-sha256"] == document["sha256"]


def test_rows_are_stored_compressed() -> None:
    rows = [{"region": "north", "amount": number} for number in range(50_000)]
    document = push(rows)
    assert document["encoding"] == "gzip"
    assert document["uri"].endswith(".json.gz")
    assert document["bytes"] < len(json.dumps(rows)) / 3
    assert pull(document) == rows


def test_a_retry_never_changes_what_an_earlier_reference_points_to() -> None:
    first, second = push("first try"), push("second try")
    assert (pull(first), pull(second)) == ("first try", "second try")


def test_many_tasks_push_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        documents = list(pool.map(push, range(64)))
    assert [pull(document) for document in documents] == list(range(64))


@pytest.mark.parametrize("value", [None, "plain", ["a"], {"a": 1}, "s3://looks/like/one"])
def test_values_written_by_the_plane_or_before_are_read_as_they_are(value: Any) -> None:
    assert pull(value) == value


def test_values_that_stock_airflow_serialised_are_still_read() -> None:
    assert pull(BaseXCom.serialize_value(WHEN)) == WHEN


def test_a_reference_elsewhere_is_not_followed() -> None:
    document = push("mine")
    home = f"s3://{xcom_store().bucket}/site-a/"
    for uri in (document["uri"].replace(home, "s3://secrets/site-a/"), f"s3://{xcom_store().bucket}/other/k"):
        with pytest.raises(ForeignReferenceError, match=uri):
            pull({**document, "uri": uri})


def test_a_damaged_object_fails_the_pull_with_its_address(raw_client: Minio) -> None:
    document = push("x" * 100)
    bucket, _, key = document["uri"].removeprefix("s3://").partition("/")
    with pytest.raises(TruncatedObjectError, match=key):
        pull({**document, "bytes": 99})
    with pytest.raises(CorruptObjectError, match=key):
        pull({**document, "sha256": "0" * 64})
    raw_client.remove_object(bucket, key)
    with pytest.raises(ObjectMissingError, match=key):
        pull(document)


def test_purge_deletes_the_object_and_can_be_repeated() -> None:
    document, other = push("mine"), push("other")
    ObjectStoreXComBackend.purge(Result(document))
    ObjectStoreXComBackend.purge(Result(document))
    with pytest.raises(ObjectMissingError):
        pull(document)
    assert pull(other) == "other"


@pytest.mark.parametrize("value", [None, "plain", {"a": 1}])
def test_purging_a_value_that_is_no_reference_touches_no_store(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JETBRIDGE_OBJECT_STORE_ENDPOINT_URL")
    xcom_store.cache_clear()
    ObjectStoreXComBackend.purge(Result(value))


def test_purging_a_foreign_or_newer_reference_deletes_nothing_and_does_not_fail_the_retry() -> None:
    document = push("mine")
    moved = document["uri"].replace("/site-a/", "/site-b/")
    ObjectStoreXComBackend.purge(Result({**document, "uri": moved}))
    ObjectStoreXComBackend.purge(Result({**document, "jetbridge.xcom": 2}))
    assert pull(document) == "mine"
    with pytest.raises(BadReferenceError):
        pull({**document, "jetbridge.xcom": 2})


def test_an_unreachable_store_fails_push_pull_and_purge_and_says_so(
    monkeypatch: pytest.MonkeyPatch, unused_address: str
) -> None:
    document = push("mine")
    monkeypatch.setenv("JETBRIDGE_OBJECT_STORE_ENDPOINT_URL", unused_address)
    monkeypatch.setenv("JETBRIDGE_OBJECT_STORE_RETRIES", "0")
    xcom_store.cache_clear()
    operations: list[Callable[[], Any]] = [
        lambda: push("another"),
        lambda: pull(document),
        lambda: ObjectStoreXComBackend.purge(Result(document)),
    ]
    for operation in operations:
        with pytest.raises(StoreUnavailableError, match=unused_address):
            operation()


def test_airflow_finds_the_backend_by_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "jetbridge.xcom.backend.ObjectStoreXComBackend")
    assert resolve_xcom_backend() is ObjectStoreXComBackend
