"""An agent that does not mask, or asks for what is closed, against a real gateway; policies act at once."""

import json
from datetime import UTC, datetime

import pytest

from jetbridge.bus.audit_log import read_audit
from jetbridge.bus.policies import PolicyStore
from jetbridge.contracts.masking import MASK, SEALED
from jetbridge.contracts.policies import PolicyRecord, queue_scope

XCOM = "/execution/xcoms/d/r/t/return_value"


@pytest.fixture
async def task(gateway, agent, store, workload, auth, own_assets):
    """A leased workload: its id and a function that calls in its name."""
    own_assets(names=("a",))
    new = workload()
    await store.submit(new)
    _, token = await agent.lease()

    async def call(method, path, body=None):
        path = path.format(ti=new.workload_id)
        return await gateway.client.request(method, path, json=body, headers=auth(token))

    return call


@pytest.fixture
async def opens(bus, queue):
    """Open classes for this test's queue."""
    policies = await PolicyStore.open(bus)

    async def set_rules(**rules):
        before = await policies.get(queue_scope(queue))
        after = PolicyRecord(
            scope=queue_scope(queue),
            boundary={name.replace("_", "-"): rule for name, rule in rules.items()},
            changed_at=datetime.now(UTC),
        )
        await policies.change(before, after)

    yield set_rules
    if written := await policies.get(queue_scope(queue)):
        await policies.remove(written)


REFUSED = [
    ("GET", "/execution/connections/db", None, "connections"),
    ("GET", "/execution/variables/x/y", None, "variables"),
    ("GET", "/execution/variables/keys", None, "variables"),
    ("PUT", "/execution/variables/x", {"val": "private"}, "variables"),
    ("DELETE", "/execution/variables/x", None, "variables"),
    ("POST", XCOM, "private", "xcom-values"),
    ("POST", "/execution/xcoms/d/r/t/_link_Where", "https://example.com/private", "operator-links"),
    ("PUT", "/execution/store/ti/{ti}/key", {"value": "private"}, "state-store-values"),
    ("PUT", "/execution/store/asset/by-name/value?name=a&key=k", {"value": "private"}, "state-store-values"),
    ("POST", "/execution/dag-runs/d/r2", {"conf": {"a": "private"}}, "run-conf"),
    ("POST", "/execution/hitlDetails/{ti}", {"subject": "private"}, "human-input"),
]


@pytest.mark.parametrize(("method", "path", "body", "data"), REFUSED)
async def test_what_is_closed_is_refused_as_airflows_client_reads_it(task, airflow, method, path, body, data):
    answer = await task(method, path, body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    detail = answer.json()["detail"]
    assert detail["reason"] == "boundary"
    assert f"boundary.{data}=open" in detail["message"]
    assert "private" not in answer.text
    assert not airflow.seen


MASKED = [
    ("PUT", "/execution/task-instances/{ti}/rtif", {"sql": "private"}, {"sql": MASK}),
    ("PATCH", "/execution/task-instances/{ti}/rendered-map-index", "private", MASK),
    (
        "PATCH",
        "/execution/task-instances/{ti}/state",
        {"state": "success", "outlet_events": [{"extra": {"a": "private"}}]},
        {"state": "success", "outlet_events": [{"extra": {"a": MASK}}]},
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "masked"), MASKED)
async def test_what_was_not_masked_is(task, method, path, body, masked):
    assert (await task(method, path, body)).json() == masked  # this Airflow answers what it was sent


@pytest.mark.parametrize("value", ["private", "private" * 1000], ids=["small", "compressed by Airflow"])
async def test_what_is_carried_over_is_stored_sealed_and_comes_back_opened(task, value):
    state = "/execution/task-instances/{ti}/state"
    body = {"state": "deferred", "trigger_kwargs": {"a": "private"}, "next_kwargs": {"b": value}}
    stored = (await task("PATCH", state, body)).json()
    assert "private" not in json.dumps(stored)
    assert stored["trigger_kwargs"].keys() == stored["next_kwargs"].keys() == {SEALED}
    start = {"dag_run": {}, "next_method": "resume", "next_kwargs": stored["next_kwargs"] | {"event": 1}}
    began = (await task("PATCH", "/execution/task-instances/{ti}/run", start)).json()
    assert began["next_kwargs"] == {"b": value, "event": 1}
    assert began["next_method"] == "resume"


async def test_a_policy_opens_its_class_for_its_queue_and_closes_it_again_at_once(
    gateway, task, opens, agent, eventually
):
    rtif, body = "/execution/task-instances/{ti}/rtif", {"sql": "private"}

    async def passes(what):
        return (await task("PUT", rtif, body)).json() == what

    assert await passes({"sql": MASK})
    await opens(rendered_fields="open")
    await eventually(lambda: "rendered-fields" in gateway.gateway.boundary.opened("", agent.queues[0]))
    assert await passes(body)
    assert (await task("POST", XCOM, "private")).status_code == 422, "no other class"
    await opens(rendered_fields="closed")
    await eventually(lambda: not gateway.gateway.boundary.opened("", agent.queues[0]))
    assert await passes({"sql": MASK})


async def test_agents_are_told_what_is_open(gateway, agent, store, workload, opens, eventually, queue):
    await opens(rendered_fields="open")
    await eventually(lambda: gateway.gateway.boundary.opened("", queue))
    await store.submit(workload())
    offers = (await agent.poll(wait_seconds=10)).json()["offers"]
    accepted = (await agent.accept(offers[0]["lease"])).json()
    assert accepted["opened"] == ["rendered-fields"]


async def test_everything_is_counted_and_the_chain_ends_with_the_gateway(gateway, bus, task):
    for method, path, body, _ in (*REFUSED[:2], *MASKED[:1]):
        await task(method, path, body)
    audit = gateway.gateway.boundary._audit
    chain = audit._chain._gateway
    await audit.close()
    records = [entry.record async for entry in read_audit(bus) if entry.record.gateway == chain]
    assert records[-1].closed
    rows = {(one.data, one.outcome): one.count for record in records for one in record.counts}
    assert rows["connections", "refused"] == 1
    assert rows["variables", "refused"] == 1
    assert rows["rendered-fields", "masked"] == 1
    assert "private" not in json.dumps([str(record) for record in records])
