"""Side tasks with names; one that dies is told to whoever can stop the process in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

from jetbridge.bus.tasks import end_tasks

log = structlog.get_logger(__name__)


class Background:
    """Runs side tasks until it is left, then cancels them and waits for their end."""

    def __init__(self, on_failure: Callable[[], None]) -> None:
        """Call ``on_failure`` when a task ends with an error nobody expected."""
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside everything else."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.critical("gateway.task_died", task=task.get_name(), exc_info=error)
            self._on_failure()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end_tasks(list(self._tasks))
