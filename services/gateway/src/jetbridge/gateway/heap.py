"""
Keeps Python's garbage collector from holding up requests.

A full collection goes through everything that lives, and comes whenever a quarter of it is new: with ten
thousand agents, whose polls end and begin again all the time, it took two seconds every four, and found
nothing. So what has survived one is set aside (``gc.freeze``) and looked at again once an hour. What is set
aside is still freed the moment nobody refers to it; only cycles among it wait for that hour.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jetbridge.bus.tasks import end_tasks

LOOK_AGAIN_SECONDS = 3600.0

_FULL = 2
"""The oldest of the collector's generations."""


def collect_all() -> None:
    """Go through everything, also what was set aside."""
    gc.unfreeze()
    gc.collect()


@asynccontextmanager
async def settled_heap() -> AsyncIterator[None]:
    """
    Look through everything once, and set aside from now on what survives a full collection.

    For a process that is a gateway and nothing else: the heap is all of the process'.
    """
    gc.callbacks.append(_set_aside)
    collect_all()
    again = asyncio.create_task(_look_again(), name="heap")
    try:
        yield
    finally:
        gc.callbacks.remove(_set_aside)
        gc.unfreeze()
        await end_tasks([again])


def _set_aside(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == _FULL:
        gc.freeze()


async def _look_again() -> None:
    while True:
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        collect_all()
