"""The terms of a lease: decided at the accept, told to the agent, and kept whatever becomes of the policy."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import msgspec
import pytest

from jetbridge.bus.policies import PolicyStore
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.policies import FailoverPolicy, PolicyRecord, queue_scope
from jetbridge.contracts.records import OnAgentLost, WorkloadState


@pytest.fixture
async def policy(bus, queue, gateway, eventually):
    """Set the failover policy of this test's queue and wait until the gateway knows it."""
    policies = await PolicyStore.open(bus)
    scope = queue_scope(queue)

    async def change(**failover):
        record = PolicyRecord(
            scope=scope, failover=FailoverPolicy(**failover), changed_at=datetime.now(UTC), changed_by="test"
        )
        await policies.change(await policies.get(scope), record)
        await eventually(lambda: gateway.gateway.policies.by_scope.get(scope) == record)

    yield change
    if before := await policies.get(scope):
        await policies.remove(before)


async def test_a_policy_that_waits_makes_the_lease_longer_and_keeps_it_so(
    agent, store, workload, policy, start_gateway
):
    await policy(on_agent_lost=OnAgentLost.WAIT, wait_seconds=3600)
    new = workload()
    await store.submit(new)
    (offer,) = (await agent.poll()).json()["offers"]
    first = (await agent.accept(offer["lease"])).json()
    await policy(on_agent_lost=OnAgentLost.REROUTE)
    other = await start_gateway()
    again = (await agent.accept(offer["lease"], other.client)).json()
    assert first["lease_seconds"] == again["lease_seconds"] == 3600
    record = (await store.get(new.workload_id)).record
    assert (record.on_agent_lost, record.lease_seconds) == (OnAgentLost.WAIT, 3600)


async def test_without_a_policy_a_lease_is_an_ordinary_one(agent, store, workload):
    new = workload()
    await store.submit(new)
    (offer,) = (await agent.poll()).json()["offers"]
    assert "lease_seconds" not in (await agent.accept(offer["lease"])).json()
    record = (await store.get(new.workload_id)).record
    assert (record.on_agent_lost, record.lease_seconds) == (OnAgentLost.REROUTE, 0)


async def test_what_the_task_asks_for_wins(agent, store, workload, policy):
    await policy(on_agent_lost=OnAgentLost.WAIT, wait_seconds=3600)
    asked = msgspec.structs.replace(workload(), on_agent_lost=OnAgentLost.FAIL)
    await store.submit(asked)
    (offer,) = (await agent.poll()).json()["offers"]
    assert "lease_seconds" not in (await agent.accept(offer["lease"])).json()
    assert (await store.get(asked.workload_id)).record.on_agent_lost is OnAgentLost.FAIL


async def test_an_abandoned_lease_that_waited_fails_for_nobody_knows_how_far_it_came(
    agent, store, workload, policy
):
    await policy(on_agent_lost=OnAgentLost.WAIT)
    new = workload()
    await store.submit(new)
    lease, _ = await agent.lease()
    await agent.report(lease, outcome="abandoned", reason="the worker is gone")
    record = (await store.get(LeaseKey.parse(lease).workload_id)).record
    assert (record.state, record.outcome.value) == (WorkloadState.FINISHED, "failed")


async def test_a_newer_process_of_the_agent_gets_the_leases_token_again_and_delivers_with_it(
    agent, airflow, auth, store, workload, policy
):
    await policy(on_agent_lost=OnAgentLost.WAIT)
    new = workload()
    await store.submit(new)
    lease, token = await agent.lease()
    agent.instance = secrets.token_hex(16)
    assert (await agent.register()).status_code == 200
    assert (await agent.accept(lease)).json()["token"] == token
    kept = f"/execution/task-instances/{new.workload_id}/state"
    answer = await agent.client.patch(kept, json={"state": "success"}, headers=auth(token))
    assert answer.status_code == 200
    assert airflow.seen[-1]["body"] == b'{"state":"success"}'
    assert (await agent.report(lease)).status_code == 200


async def test_what_is_delivered_after_the_lease_has_moved_is_refused_and_changes_nothing(
    agent, airflow, auth, store, workload, policy, problem
):
    await policy(on_agent_lost=OnAgentLost.WAIT)
    new = workload()
    await store.submit(new)
    lease, token = await agent.lease()
    await store.finish(LeaseKey.parse(lease), agent.name, Outcome.FAILED, None, "the wait is over")
    await store.submit(new)  # and Airflow retries it, under the same id in this test
    before = len(airflow.seen)
    kept = f"/execution/task-instances/{new.workload_id}/state"
    answer = await agent.client.patch(kept, json={"state": "success"}, headers=auth(token))
    assert answer.status_code == 410
    problem(await agent.accept(lease), "lease-lost")
    problem(await agent.report(lease), "lease-lost")
    assert len(airflow.seen) == before
    assert (await store.get(new.workload_id)).record.state is WorkloadState.SUBMITTED
