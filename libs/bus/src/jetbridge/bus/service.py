"""What the plane's long-running processes share: run side by side, stop on SIGTERM, fail loudly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection, Coroutine
from typing import Any

_CANCEL_AGAIN_SECONDS = 1.0


async def run_until_stopped(**tasks: Coroutine[Any, Any, None]) -> None:
    """
    Run named tasks until SIGTERM or SIGINT, then cancel them and return.

    Each of them is meant to run for ever: an error in one cancels the others and is raised (as an
    ``ExceptionGroup``), and so is one that simply ends, so that no process lives on half dead.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_never_ending(name, work), name=name) for name, work in tasks.items()]
        await stop.wait()
        await _end(running)


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """
    Cancel tasks until they have ended.

    Once may not be enough: ``asyncio.wait_for`` of Python 3.11, which nats-py uses for every request,
    swallows a cancellation that arrives together with the answer.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)


async def _never_ending(name: str, work: Coroutine[Any, Any, None]) -> None:
    await work
    msg = f"the task {name!r} ended, which it never should"
    raise RuntimeError(msg)
