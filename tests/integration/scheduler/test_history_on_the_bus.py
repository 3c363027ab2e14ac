"""Events reach a scheduler's audit log: again after a crash, not at all when nobody can read them."""

import asyncio
import json

import pytest

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import TaskCoordinates, WorkloadLeased
from jetbridge.contracts.subjects import EVENTS_STREAM
from jetbridge.scheduler import history

ID = "11111111-1111-1111-1111-11111111111{}"


@pytest.fixture
def publish(plane):
    async def publish(number, epoch=7):
        lease = LeaseKey(ID.format(number), epoch)
        body = WorkloadLeased(
            workload_id=lease.workload_id,
            epoch=epoch,
            agent="worker-1",
            queue="default",
            coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id=f"t{number}", try_number=1),
        )
        await plane.store.publish_event(body, f"leased.{lease}")

    return publish


async def published(publishing):
    """JetStream needs a moment after its server answers."""
    try:
        await publishing
    except BusUnavailableError:
        return False
    return True


def written(executor):
    return [entry.task_id for entry in executor._task_event_logs]


async def settled(plane):
    """Wait until the consumer has nothing left, neither to deliver nor to be acknowledged."""
    async with asyncio.timeout(30):
        while True:
            info = await plane.bus.js.consumer_info(EVENTS_STREAM, history.CONSUMER)
            if info.num_pending == 0 and info.num_ack_pending == 0:
                return
            await asyncio.sleep(0.05)


async def test_events_are_written_once_and_in_order(executor, plane, publish, until):
    for number in range(5):
        await publish(number)
    await publish(0)  # the gateway repeats itself
    await until(executor, lambda: len(written(executor)) == 5)
    assert written(executor) == [f"t{number}" for number in range(5)]
    executor.heartbeat()
    await settled(plane)
    extra = json.loads(executor._task_event_logs[0].extra)
    assert (extra["agent"], extra["lease"]) == ("worker-1", f"{ID.format(0)}.7")


@pytest.fixture
async def stuck(make_executor, publish):
    """A scheduler that has an event and does not get to write it."""
    executor = make_executor()
    await publish(1)
    async with asyncio.timeout(30):
        while not executor._link._session.history._waiting:
            await asyncio.sleep(0.05)
    return executor


async def test_what_a_stopping_scheduler_has_not_written_goes_to_the_next(stuck, make_executor, plane, until):
    stuck.end()
    second = make_executor()
    await until(second, lambda: written(second))
    assert written(second) == ["t1"]
    second.heartbeat()
    await settled(plane)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(history, "WRITTEN_WITHIN_SECONDS", 1.0)


@pytest.mark.usefixtures("impatient", "stuck")
async def test_what_a_hanging_scheduler_does_not_write_goes_to_another_one(make_executor, until):
    second = make_executor()
    await until(second, lambda: written(second))
    assert written(second) == ["t1"]


async def test_what_happened_before_the_first_scheduler_started_is_written(publish, make_executor, until):
    await publish(1)
    executor = make_executor()
    await until(executor, lambda: written(executor))
    assert written(executor) == ["t1"]


@pytest.mark.parametrize("data", [b"\xff not utf-8", b'{"type":"workload.leased","version":99}', b""])
async def test_what_cannot_be_read_is_passed_over_and_stays_in_the_stream(
    executor, plane, publish, until, data
):
    await plane.bus.js.publish("event.workload.leased", data)
    await publish(2)
    await until(executor, lambda: written(executor))
    assert written(executor) == ["t2"]
    executor.heartbeat()
    await settled(plane)
    assert (await plane.bus.js.stream_info(EVENTS_STREAM)).state.messages == 2


async def test_two_schedulers_share_the_events(make_executor, publish, until):
    one, two = make_executor(), make_executor()
    for number in range(6):
        await publish(number)

    def both():
        two.heartbeat()
        return len(written(one)) + len(written(two)) == 6

    await until(one, both)
    assert sorted(written(one) + written(two)) == [f"t{number}" for number in range(6)]


async def test_events_are_written_after_the_server_was_away(executor, server, publish, until):
    await publish(1)
    await until(executor, lambda: written(executor) == ["t1"])
    executor.heartbeat()
    server.stop()
    server.start()
    async with asyncio.timeout(60):
        while not await published(publish(2)):
            await asyncio.sleep(0.1)
    await until(executor, lambda: written(executor) == ["t1", "t2"])


async def test_a_consumer_that_was_deleted_is_made_again(make_executor, plane, publish, until):
    executor = make_executor(sweep_interval_seconds=0.2)
    await until(executor, executor._link._session._opened.is_set)
    await plane.bus.js.delete_consumer(EVENTS_STREAM, history.CONSUMER)
    await publish(1)
    await until(executor, lambda: written(executor))
    assert written(executor) == ["t1"]
