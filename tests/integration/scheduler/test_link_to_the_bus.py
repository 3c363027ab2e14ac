"""Handing over in steps that may be repeated: by a retry, or by the next scheduler."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import submission_of
from jetbridge.contracts.envelope import open_envelope, read_body
from jetbridge.contracts.messages import Outcome, WorkloadSubmitted
from jetbridge.contracts.records import WorkloadState
from jetbridge.scheduler import handover
from jetbridge.scheduler.link import BusLink
from jetbridge.scheduler.retry import Persistence, Trouble
from jetbridge.scheduler.settings import SchedulerSettings
from jetbridge.scheduler.testing import make_task
from jetbridge.scheduler.translate import new_workload


@pytest.fixture
def workload():
    return new_workload(make_task())


@pytest.fixture
async def link(plane, server):
    assert plane
    link = BusLink(BusSettings(url=server.url), SchedulerSettings())
    link.start()
    yield link
    await asyncio.to_thread(link.stop, 0)


def now():
    return datetime.now(UTC)


async def resume(link, workload, queued_at):
    return await asyncio.wait_for(asyncio.wrap_future(link.submit(workload, None, queued_at=queued_at)), 30)


class TestAfterADeadScheduler:
    """The task is QUEUED in Airflow; how far did its scheduler get?"""

    async def test_nothing_was_done(self, link, plane, workload):
        submission = await resume(link, workload, now())
        assert (await plane.store.get(workload.workload_id)).revision == submission
        assert await plane.waiting() == 1

    async def test_it_died_between_record_and_message(self, link, plane, workload):
        submission = await plane.store.write_submitted(workload)
        assert await resume(link, workload, now()) == submission
        (message,) = await plane.pull()
        assert read_body(open_envelope(message.data), WorkloadSubmitted).submission == submission

    async def test_it_died_after_the_message(self, link, plane, workload):
        submission = await plane.store.submit(workload)
        assert await resume(link, workload, now()) == submission
        assert await plane.waiting() == 1

    async def test_an_agent_was_offered_it(self, link, plane, workload):
        submission = await plane.store.submit(workload)
        (message,) = await plane.pull()
        lease = await plane.store.offer(await plane.store.get(workload.workload_id), "a1", message.reply)
        assert await resume(link, workload, now()) == submission
        assert await plane.store.accept(lease, "a1")

    async def test_an_agent_has_it(self, link, plane, workload):
        queued_at = now()
        submission = await plane.store.submit(workload)
        (lease,) = await plane.lease()
        assert await resume(link, workload, queued_at) == submission
        assert (await plane.store.get(workload.workload_id)).record.epoch == lease.epoch

    @pytest.mark.parametrize("reported", [True, False])
    async def test_the_record_is_of_the_life_before_a_deferral(self, link, plane, workload, reported):
        first = await plane.store.submit(workload)
        (lease,) = await plane.lease()
        if reported:
            await plane.finish(lease)
        submission = await resume(link, workload, now() + timedelta(seconds=5))
        record = await plane.store.get(workload.workload_id)
        assert submission_of(record) == submission > first
        assert record.record.state is WorkloadState.SUBMITTED
        assert await plane.waiting() == 1


async def test_a_publish_whose_answer_is_lost_neither_doubles_the_work_nor_fences_its_agent(plane, workload):
    """Between the publish and its repetition an agent took the work."""

    class AnswerIsLost:
        times = 0

        def __getattr__(self, name):
            return getattr(plane.store, name)

        async def publish_work(self, *args):
            await plane.store.publish_work(*args)
            self.times += 1
            if self.times == 1:
                leases.extend(await plane.lease())
                raise BusUnavailableError("no answer")

    async def connected():
        return store

    store, leases = AnswerIsLost(), []
    submission = await handover.submit(Persistence(connected, Trouble(), 1), workload, None)
    assert store.times == 2
    assert await plane.waiting() == 0
    current = await plane.store.get(workload.workload_id)
    assert submission_of(current) == submission
    await plane.store.finish(leases[0], "worker-1", Outcome.SUCCEEDED, 0, "")


async def test_a_record_whose_answer_is_lost_is_written_again(plane, workload):
    class AnswerIsLost:
        times = 0

        def __getattr__(self, name):
            return getattr(plane.store, name)

        async def write_submitted(self, new):
            submission = await plane.store.write_submitted(new)
            self.times += 1
            if self.times == 1:
                raise TimeoutError
            return submission

    async def connected():
        return store

    store = AnswerIsLost()
    submission = await handover.submit(Persistence(connected, Trouble(), 1), workload, None)
    (message,) = await plane.pull()
    assert read_body(open_envelope(message.data), WorkloadSubmitted).submission == submission
    assert (await plane.store.get(workload.workload_id)).revision == submission


async def test_removing_spares_a_later_submission(link, plane, workload):
    first = await plane.store.submit(workload)
    second = await plane.store.submit(workload)
    link.remove(workload.workload_id, first)
    link.remove("00000000-0000-0000-0000-000000000000", 1)
    assert await resume(link, workload, now()) == second  # in turn, so the removal has been
    link.remove(workload.workload_id, second)
    assert await asyncio.wait_for(asyncio.wrap_future(link.exists(workload.workload_id)), 30) in (True, False)
    async with asyncio.timeout(30):
        while await plane.store.get(workload.workload_id):
            await asyncio.sleep(0.02)


async def test_a_record_of_a_newer_version_exists_although_it_cannot_be_read(link, plane, workload):
    await plane.store.bucket.kv.put(workload.workload_id, b'{"version":2,"something":"else"}')
    assert await asyncio.wait_for(asyncio.wrap_future(link.exists(workload.workload_id)), 30)
    known = await asyncio.to_thread(link.ask, [workload.workload_id, "0" * 8], 30)
    assert known == {workload.workload_id}


async def test_a_session_that_broke_is_opened_again(link, plane, workload):
    """A bug in one of its tasks must not end the link for good."""
    async with asyncio.timeout(30):
        while not (current := link._session._open):
            await asyncio.sleep(0.02)

    def break_it():
        current.workloads._bucket = None

    link._loop.call_soon_threadsafe(break_it)
    current.workloads._records["x"] = None
    await plane.store.submit(workload)
    async with asyncio.timeout(30):
        while link.record(workload.workload_id) is None or link._session._open is current:
            await asyncio.sleep(0.02)
