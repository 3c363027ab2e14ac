from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from jetbridge.agent import side_tasks
from jetbridge.agent.side_tasks import SideTasks, TaskDiedError
from jetbridge.agent.waiting import wait_at_most


@pytest.fixture
async def tasks():
    tasks = SideTasks()
    yield tasks
    await tasks.cancel()


async def test_an_error_in_any_task_is_the_failure(tasks):
    async def breaks():
        raise LookupError("bug")

    tasks.run_forever("endless", asyncio.Event().wait())
    tasks.run("breaks", breaks())
    with capture_logs() as logs, pytest.raises(LookupError):
        await asyncio.wait_for(tasks.failure(), 30)
    assert [(entry["event"], entry["task"]) for entry in logs] == [("side task failed", "breaks")]


async def test_the_end_of_an_endless_task_is_a_failure_that_names_it(tasks):
    tasks.run_forever("heartbeat", asyncio.sleep(0))
    with pytest.raises(TaskDiedError, match="'heartbeat'"):
        await asyncio.wait_for(tasks.failure(), 30)


async def test_the_end_of_a_finite_task_is_none(tasks):
    tasks.run("once", asyncio.sleep(0))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tasks.failure(), 0.05)


async def test_the_first_failure_counts(tasks):
    async def breaks(error):
        raise error

    with capture_logs():
        tasks.run("first", breaks(LookupError()))
        await asyncio.sleep(0)
        tasks.run("second", breaks(KeyError()))
        await asyncio.sleep(0)
    with pytest.raises(LookupError):
        await tasks.failure()


async def test_cancelled_tasks_have_not_failed(tasks):
    cleaned = asyncio.Event()

    async def tidy():
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    tasks.run_forever("tidy", tidy())
    await asyncio.sleep(0)
    await tasks.cancel()
    assert cleaned.is_set()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tasks.failure(), 0.05)


async def test_a_task_that_loses_a_cancellation_is_cancelled_again(tasks, monkeypatch):
    monkeypatch.setattr(side_tasks, "CANCEL_AGAIN_SECONDS", 0.01)
    lost = []

    async def loses_one():
        while not lost:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(True)
        await asyncio.Event().wait()

    tasks.run_forever("loses one", loses_one())
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.cancel(), 30)
    assert lost


async def test_a_cancellation_that_arrives_with_the_event_is_not_lost():
    event = asyncio.Event()

    async def waits():
        await wait_at_most(event, 3600)
        pytest.fail("the wait swallowed the cancellation")

    waiting = asyncio.create_task(waits())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
