"""Every move of a workload's record: once, twice, late, by the wrong one, and two at the same time."""

import asyncio

import pytest

from jetbridge.bus.errors import ConflictError, LeaseLostError
from jetbridge.bus.lanes import Lane
from jetbridge.bus.workloads import submission_of
from jetbridge.contracts.envelope import open_envelope, read_body
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome, WorkloadLeased, WorkloadSubmitted
from jetbridge.contracts.records import WorkloadState
from jetbridge.contracts.subjects import WORK_STREAM


async def pull(bus, queue, limit=10):
    async with Lane(bus, queue) as lane:
        return await asyncio.wait_for(lane.take(limit), 15)


async def offered(store, bus, queue, workload, agent="a1"):
    await store.submit(workload)
    (message,) = await pull(bus, queue)
    current = await store.get(workload.workload_id)
    return await store.offer(current, agent, message.reply)


async def test_submit_writes_the_record_and_then_the_message(store, bus, queue, workload):
    new = workload()
    submission = await store.submit(new, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    (message,) = await pull(bus, queue)
    body = read_body(open_envelope(message.data), WorkloadSubmitted)
    current = await store.get(new.workload_id)
    assert (body.submission, submission_of(current)) == (submission, submission)
    assert bytes(body.spec) == new.spec
    assert message.headers["Nats-Msg-Id"] == f"{new.workload_id}.{submission}"
    assert message.headers["traceparent"] == open_envelope(message.data).traceparent


async def test_submit_again_makes_the_first_message_stale(store, bus, queue, workload):
    new = workload()
    first, second = await store.submit(new), await store.submit(new)
    messages = await pull(bus, queue)
    bodies = [read_body(open_envelope(message.data), WorkloadSubmitted) for message in messages]
    assert [body.submission for body in bodies] == [first, second]
    assert submission_of(await store.get(new.workload_id)) == second


async def test_submit_over_a_held_lease_fences_it(store, bus, queue, workload):
    new = workload()
    lease = await offered(store, bus, queue, new)
    await store.accept(lease, "a1")
    await store.submit(new)
    with pytest.raises(LeaseLostError):
        await store.finish(lease, "a1", Outcome.SUCCEEDED, 0, "")


async def test_epochs_grow(store, bus, queue, workload):
    new = workload()
    first = await offered(store, bus, queue, new)
    second = await store.offer(await store.get(new.workload_id), "a2", "ack")
    assert second.epoch > first.epoch
    with pytest.raises(LeaseLostError):
        await store.accept(first, "a1")
    assert (await store.accept(second, "a2")).agent == "a2"


async def test_accept_takes_the_message_off_the_queue(store, bus, queue, workload):
    lease = await offered(store, bus, queue, workload())
    for _ in range(2):  # a lost answer is asked for again
        record = await store.accept(lease, "a1")
        assert (record.state, record.epoch, record.agent) == (WorkloadState.LEASED, lease.epoch, "a1")
    await bus.client.flush()
    left = await bus.js.stream_info(WORK_STREAM, subjects_filter=f"work.{queue}.>")
    assert not left.state.subjects


@pytest.mark.parametrize("agent", ["a2", "nobody"])
async def test_accept_by_another_agent_changes_nothing(store, bus, queue, workload, agent):
    lease = await offered(store, bus, queue, workload())
    with pytest.raises(LeaseLostError):
        await store.accept(lease, agent)
    assert (await store.get(lease.workload_id)).record.state is WorkloadState.OFFERED


async def test_an_invented_epoch_or_workload_is_refused(store, bus, queue, workload):
    lease = await offered(store, bus, queue, workload())
    nobody = LeaseKey("00000000-0000-0000-0000-000000000000", lease.epoch)
    for wrong in (LeaseKey(lease.workload_id, lease.epoch + 1), LeaseKey(lease.workload_id, 1), nobody):
        with pytest.raises(LeaseLostError):
            await store.accept(wrong, "a1")


async def test_of_many_agents_offered_at_once_one_wins(store, workload):
    new = workload()
    await store.submit(new)
    current = await store.get(new.workload_id)
    results = await asyncio.gather(
        *(store.offer(current, f"a{n}", "ack") for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, LeaseKey) for result in results) == 1
    assert sum(isinstance(result, ConflictError) for result in results) == 7


async def test_finish_keeps_what_the_first_report_said(store, bus, queue, workload):
    lease = await offered(store, bus, queue, workload())
    await store.accept(lease, "a1")
    await store.finish(lease, "a1", Outcome.FAILED, -9, "killed by SIGKILL")
    record = await store.finish(lease, "a1", Outcome.SUCCEEDED, 0, "")
    assert (record.outcome, record.exit_code, record.reason) == (Outcome.FAILED, -9, "killed by SIGKILL")


async def test_finish_before_accept_or_by_another_is_refused(store, bus, queue, workload):
    lease = await offered(store, bus, queue, workload())
    with pytest.raises(LeaseLostError):
        await store.finish(lease, "a1", Outcome.SUCCEEDED, 0, "")
    await store.accept(lease, "a1")
    with pytest.raises(LeaseLostError):
        await store.finish(lease, "a2", Outcome.SUCCEEDED, 0, "")
    assert (await store.get(lease.workload_id)).record.state is WorkloadState.LEASED


async def test_removed_work_is_gone_for_its_agent_and_may_come_back(store, bus, queue, workload):
    new = workload()
    lease = await offered(store, bus, queue, new)
    await store.accept(lease, "a1")
    await store.remove(new.workload_id)
    await store.remove(new.workload_id)
    assert await store.get(new.workload_id) is None
    with pytest.raises(LeaseLostError):
        await store.finish(lease, "a1", Outcome.SUCCEEDED, 0, "")
    again = await offered(store, bus, queue, new)
    assert again.epoch > lease.epoch


async def test_an_event_published_twice_is_kept_once(store, bus, queue, workload):
    lease = await offered(store, bus, queue, workload())
    record = await store.accept(lease, "a1")
    body = WorkloadLeased(
        workload_id=lease.workload_id,
        epoch=lease.epoch,
        agent="a1",
        queue=queue,
        coordinates=record.coordinates,
    )
    before = (await bus.js.stream_info("EVENTS")).state.messages
    for _ in range(2):
        await store.publish_event(body, f"{lease}.leased")
    assert (await bus.js.stream_info("EVENTS")).state.messages == before + 1


async def test_a_record_that_a_mirror_saw_is_only_a_hint(store, workload):
    new = workload()
    await store.submit(new)
    submitted = await store.get(new.workload_id)
    lease = await store.offer(submitted, "a", "")
    offered = await store.get(new.workload_id)
    for stale in (submitted, None):  # too old to say anything: the record itself is read
        assert (await store.accept(lease, "a", stale)).state is WorkloadState.LEASED
    assert (await store.accept(lease, "a", offered)).epoch == lease.epoch
    leased = await store.get(new.workload_id)
    finished = await store.finish(lease, "a", Outcome.SUCCEEDED, 0, "", leased)
    again = await store.finish(lease, "a", Outcome.FAILED, 1, "", leased)
    assert (finished.outcome, again.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    await store.remove(new.workload_id)
    for call in (store.accept(lease, "a", offered), store.finish(lease, "a", Outcome.FAILED, 1, "", leased)):
        with pytest.raises(LeaseLostError):
            await call
