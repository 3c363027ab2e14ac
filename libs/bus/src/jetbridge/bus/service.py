"""What the plane's long-running processes share: run side by side, stop on SIGTERM, fail loudly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from jetbridge.bus.tasks import end_tasks


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
        await end_tasks(running)


async def _never_ending(name: str, work: Coroutine[Any, Any, None]) -> None:
    await work
    msg = f"the task {name!r} ended, which it never should"
    raise RuntimeError(msg)
