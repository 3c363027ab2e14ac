"""
Small waits that asyncio does not have in one call.

Nothing here or in an agent uses ``asyncio.wait_for``: before Python 3.12 it swallows a cancellation that
arrives together with the result, and a loop that goes on after its cancellation never lets its agent end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_AGAIN_SECONDS = 1.0
"""How long a task that was cancelled may go on before it is cancelled again."""


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, but no longer than ``seconds``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()


async def first(*works: Coroutine[Any, Any, Any]) -> None:
    """Wait until the first of several ends, cancel the others, and raise its error if it has one."""
    async with contextlib.AsyncExitStack() as stack:
        tasks = [await stack.enter_async_context(running(work)) for work in works]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run ``work`` beside the body; it is cancelled, and over, when the body ends."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        while not task.done():  # libraries, too, sometimes lose a cancellation
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)
