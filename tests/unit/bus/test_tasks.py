"""Tasks end when they are told to, whatever they make of their first cancellation."""

import asyncio
from contextlib import suppress

from jetbridge.bus.tasks import end_tasks


async def test_a_task_that_swallows_a_cancellation_ends_all_the_same():
    begun, swallowed = asyncio.Event(), asyncio.Event()

    async def work():
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        swallowed.set()
        await asyncio.sleep(3600)

    task = asyncio.create_task(work())
    await begun.wait()
    async with asyncio.timeout(15):
        await end_tasks([task])
    assert swallowed.is_set()
    assert task.cancelled()
