from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from jetbridge.agent.side_tasks import SideTasks, TaskDiedError


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
