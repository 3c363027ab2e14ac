"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

_CANCEL_AGAIN_SECONDS = 1.0


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """
    Cancel tasks until they have ended. What they failed with is of no interest any more.

    Once may not be enough: ``asyncio.wait_for`` of Python 3.11, which nats-py uses for every request,
    swallows a cancellation that arrives together with the answer.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # else asyncio logs that nobody asked
