"""Values of task and asset state stores live in the site's object store; the plane gets where."""

import asyncio
import json

import pytest
from airflow.sdk import state
from airflow.sdk.execution_time import context

from jetbridge.xcom import backend, state_store
from jetbridge.xcom.errors import ForeignReferenceError
from jetbridge.xcom.state_store import ObjectStoreStateBackend
from jetbridge.xcom.store import ObjectStore

TASK = state.TaskScope("d/with slash", "manual__2026-01-01T00:00:00+00:00", "t", 3)
ASSET = state.AssetScope(name="orders", uri="s3://elsewhere/orders")


@pytest.fixture
def store(store_settings, monkeypatch):
    store = ObjectStore(store_settings, store_settings.xcom_bucket)
    monkeypatch.setattr(state_store, "xcom_store", lambda: store)
    return store


@pytest.fixture
def kept(store):  # noqa: ARG001 - the backend uses it
    return ObjectStoreStateBackend()


def test_a_value_comes_back_and_is_not_in_the_reference(kept):
    ref = kept.serialize_task_state_store_to_ref(value={"secret": [1, "ü"]}, key="a/b", scope=TASK)
    assert "secret" not in ref
    assert kept.deserialize_task_state_store_from_ref(ref) == {"secret": [1, "ü"]}
    ref = kept.serialize_asset_state_store_to_ref(value=7, key="watermark", scope=ASSET)
    assert kept.deserialize_asset_state_store_from_ref(ref) == 7


def test_the_reference_is_the_same_for_each_write_and_the_last_one_counts(kept):
    first = kept.serialize_task_state_store_to_ref(value=1, key="k", scope=TASK)
    assert kept.serialize_task_state_store_to_ref(value=2, key="k", scope=TASK) == first
    assert kept.deserialize_task_state_store_from_ref(first) == 2


def test_the_gateway_takes_the_reference_for_one(kept):
    from jetbridge.contracts.boundary import decide
    from jetbridge.gateway.screening import Look, screened
    from jetbridge.sealing.keyring import Keyring

    ref = kept.serialize_task_state_store_to_ref(value=1, key="a ü/b", scope=TASK)
    body = {"value": context._wrap_external_ref(ref), "expires_at": None}
    look = Look(decision=decide(lambda _data: None), task=None, named={}, at_rest=Keyring([b"k" * 32]))
    operation = "PUT /execution/store/ti/{task_instance_id}/{key}"
    assert json.loads(screened(operation, json.dumps(body).encode(), look)) == body


def test_deleting_and_clearing(kept, store):
    scopes = [TASK, state.TaskScope(TASK.dag_id, TASK.run_id, TASK.task_id, 31)]
    for scope in scopes:
        for key in ("a", "b"):
            kept.set(scope, key, '"x"')
    kept.delete(TASK, "a")
    kept.delete(TASK, "a")
    assert (kept.get(TASK, "a"), kept.get(TASK, "b")) == (None, '"x"')
    kept.clear(TASK)
    assert kept.get(TASK, "b") is None
    assert kept.get(scopes[1], "a") == '"x"', "31 is not 3"
    kept.clear(TASK, all_map_indices=True)
    assert not store.list("")


def test_the_same_without_blocking_a_loop(kept):
    async def use():
        await kept.aset(ASSET, "k", "1")
        found = await kept.aget(ASSET, "k")
        await kept.adelete(ASSET, "k")
        await kept.aclear(ASSET)
        return found, await kept.aget(ASSET, "k")

    assert asyncio.run(use()) == ("1", None)


@pytest.mark.parametrize("key", ["../x", "state/../../x", "", "d/r/t/-1/return_value.json"])
def test_a_reference_out_of_the_folder_is_not_followed(kept, store, key):
    for uri in (f"s3://{store.bucket}/{store.settings.key_prefix}{key}", f"s3://other/state/{key}"):
        with pytest.raises(ForeignReferenceError):
            kept.deserialize_task_state_store_from_ref(uri)


def test_airflow_finds_the_backend_by_its_setting(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW__WORKERS__STATE_STORE_BACKEND", "jetbridge.xcom.state_store.ObjectStoreStateBackend"
    )
    context._get_worker_state_store_backend.cache_clear()
    try:
        assert isinstance(context._get_worker_state_store_backend(), ObjectStoreStateBackend)
    finally:
        context._get_worker_state_store_backend.cache_clear()
    assert backend.xcom_store is not None
