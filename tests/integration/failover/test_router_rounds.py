"""The router on a real bus: each step once, whoever takes it and whenever somebody dies."""

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest
from opentelemetry.trace import StatusCode

from jetbridge.bus.errors import LeaseLostError
from jetbridge.bus.health import HealthStore
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.workloads import Terms
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.records import Health, HealthRecord, OnAgentLost, WorkloadState
from jetbridge.router.metrics import RouterMetrics
from jetbridge.router.rounds import RequeueError, Rounds


class Airflow:
    """Stands for the bridge: remembers what it was asked, refuses as often as it is told."""

    def __init__(self):
        self.asked = []
        self.refusals = 0

    async def __call__(self, record):
        self.asked.append(record.workload_id)
        if self.refusals:
            self.refusals -= 1
            raise RequeueError("the metadata database is away")


@pytest.fixture
def airflow():
    return Airflow()


@pytest.fixture
async def start_router(bus, store, running, airflow):
    async def start():
        workloads = BucketMirror(bus, store.bucket)
        health = BucketMirror(bus, (await HealthStore.open(bus)).bucket)
        running(workloads.run())
        running(health.run())
        await asyncio.wait_for(asyncio.gather(workloads.ready.wait(), health.ready.wait()), 15)
        rounds = Rounds(workloads, health, store, airflow, RouterMetrics(), 0.2)
        return running(rounds.run())

    return start


@pytest.fixture
def say(bus):
    async def say(agent, health, silent_seconds=0.0):
        store = await HealthStore.open(bus)
        record = HealthRecord(
            agent=agent[0],
            instance=agent[1],
            health=health,
            since=datetime.now(UTC),
            reason="silent",
            silent_seconds=silent_seconds,
        )
        before = await store.bucket.get(f"{agent[0]}/{agent[1]}")
        await store.change(before, record)

    return say


async def test_the_lease_of_a_lost_agent_is_fenced_requeued_and_gone(
    start_router, say, lease, store, agent, airflow, eventually
):
    key = await lease(agent[0], agent[1])
    await start_router()
    await say(agent, Health.LOST)
    await eventually(lambda: _gone(store, key))
    assert airflow.asked.count(key.workload_id) == 1  # other tests' agents are lost in the same bucket
    with pytest.raises(LeaseLostError):
        await store.finish(key, agent[0], Outcome.SUCCEEDED, 0, "")


@pytest.mark.parametrize("health", [Health.HEALTHY, Health.SUSPECT])
async def test_a_suspect_keeps_its_lease(start_router, say, lease, store, agent, health, eventually):
    key = await lease(agent[0], agent[1])
    other = ("lost-one", agent[1])
    lost = await lease(*other)
    await start_router()
    await say(agent, health)
    await say(other, Health.LOST)
    await eventually(lambda: _gone(store, lost))  # the router did look
    assert (await store.get(key.workload_id)).record.state is WorkloadState.LEASED


async def test_another_process_of_the_same_name_keeps_its_lease(
    start_router, say, lease, store, agent, eventually
):
    old, new = await lease(agent[0], agent[1]), await lease(agent[0], "f" * 32)
    await start_router()
    await say(agent, Health.LOST)
    await eventually(lambda: _gone(store, old))
    assert (await store.get(new.workload_id)).record.state is WorkloadState.LEASED


async def test_a_task_that_must_not_run_again_fails(start_router, say, lease, store, agent, eventually):
    key = await lease(agent[0], agent[1], on_agent_lost=OnAgentLost.FAIL)
    await start_router()
    await say(agent, Health.LOST)

    async def failed():
        entry = await store.get(key.workload_id)
        return entry.record.state is WorkloadState.FINISHED and entry.record

    record = await eventually(failed)
    assert record.outcome is Outcome.FAILED
    assert f"agent {agent[0]} was lost" in record.reason


def waits(seconds):
    return lambda _record: Terms(on_agent_lost=OnAgentLost.WAIT, wait_seconds=seconds, lease_seconds=seconds)


async def test_a_lease_that_waits_is_left_to_its_lost_agent_until_its_time_is_over(
    start_router, say, lease, store, agent, airflow, eventually
):
    ordinary = await lease(agent[0], agent[1])
    longer = await lease(agent[0], agent[1], terms=waits(600.0))
    await start_router()
    await say(agent, Health.LOST, 120.0)
    await eventually(lambda: _gone(store, ordinary))  # the router did look
    assert (await store.get(longer.workload_id)).record.state is WorkloadState.LEASED
    await say(agent, Health.LOST, 599.0)  # as if the sentinel had counted on; the last second is the router's

    async def failed():
        entry = await store.get(longer.workload_id)
        return entry.record.state is WorkloadState.FINISHED and entry.record

    record = await eventually(failed)
    assert record.outcome is Outcome.FAILED
    assert "the wait of 600 s is over" in record.reason
    assert airflow.asked == [ordinary.workload_id]


async def test_an_agent_that_is_heard_again_in_time_keeps_its_lease(
    start_router, say, lease, store, agent, eventually
):
    longer = await lease(agent[0], agent[1], terms=waits(600.0))
    await start_router()
    await say(agent, Health.LOST, 500.0)
    await say(agent, Health.HEALTHY)
    other = ("lost-too", agent[1])
    lost = await lease(*other)
    await say(other, Health.LOST)
    await eventually(lambda: _gone(store, lost))
    assert (await store.get(longer.workload_id)).record.state is WorkloadState.LEASED


async def test_while_airflow_is_away_the_work_waits_fenced(
    start_router, say, lease, store, agent, airflow, eventually
):
    airflow.refusals = 3
    key = await lease(agent[0], agent[1])
    await start_router()
    await say(agent, Health.LOST)
    await eventually(lambda: _gone(store, key))
    assert airflow.asked == [key.workload_id] * 4


async def test_a_router_that_died_after_the_release_is_continued(
    start_router, lease, store, agent, airflow, eventually
):
    key = await lease(agent[0], agent[1])
    await store.release(key, "agent was lost")  # and here the first router died
    await start_router()
    await eventually(lambda: _gone(store, key))
    assert airflow.asked == [key.workload_id]


async def test_three_routers_and_many_leases(start_router, say, lease, store, agent, airflow, eventually):
    keys = [await lease(agent[0], agent[1]) for _ in range(20)]
    for _ in range(3):
        await start_router()
    await say(agent, Health.LOST)
    for key in keys:
        await eventually(lambda key=key: _gone(store, key))
    assert set(airflow.asked) == {key.workload_id for key in keys}


async def test_a_workload_submitted_anew_is_not_taken_for_the_released_one(lease, store, agent):
    key = await lease(agent[0], agent[1])
    await store.release(key, "agent was lost")
    released = (await store.get(key.workload_id)).record
    anew = msgspec.structs.replace(released, state=WorkloadState.SUBMITTED, epoch=0, agent=None)
    await store.bucket.put(key.workload_id, anew)
    await store.remove_released(key)
    assert (await store.get(key.workload_id)).record.state is WorkloadState.SUBMITTED


def well(spans):
    return [one for one in spans if one.status.status_code is not StatusCode.ERROR]


async def test_release_and_requeue_are_traces_of_their_own_that_name_the_workload(
    start_router, say, lease, agent, spans, eventually
):
    key = await lease(agent[0], agent[1])
    await start_router()
    await say(agent, Health.LOST)
    await eventually(lambda: len(well(spans.about(workload=key.workload_id))) == 2)
    release, requeue = well(spans.about(workload=key.workload_id, agent=agent[0]))
    assert (release.name, release.parent) == ("router.release", None)
    assert (requeue.name, requeue.parent) == ("router.requeue", None)
    assert release.context.trace_id != requeue.context.trace_id
    assert spans.below(release) == ["send event.workload.released"]


async def test_a_task_that_fails_with_its_agent_has_a_trace_of_that(
    start_router, say, lease, agent, spans, eventually
):
    key = await lease(agent[0], agent[1], on_agent_lost=OnAgentLost.FAIL)
    await start_router()
    await say(agent, Health.LOST)
    (fail,) = await eventually(lambda: well(spans.about(workload=key.workload_id)))
    assert (fail.name, fail.parent) == ("router.fail", None)
    assert spans.below(fail) == ["send event.workload.released"]


async def test_a_step_that_fails_is_an_error_without_its_text(
    start_router, lease, store, agent, airflow, spans, eventually
):
    airflow.refusals = 1
    key = await lease(agent[0], agent[1])
    await store.release(key, "agent was lost")
    await start_router()
    await eventually(lambda: _gone(store, key))
    first = spans.about(workload=key.workload_id)[0]
    assert (first.name, first.status.status_code) == ("router.requeue", StatusCode.ERROR)
    assert first.attributes["error.type"] == "RequeueError"
    assert (first.status.description, first.events) == (None, ())


async def _gone(store, key):
    return await store.get(key.workload_id) is None
