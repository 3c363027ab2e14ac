"""Named asyncio tasks that cannot die unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

import structlog

from jetbridge.agent.errors import AgentError
from jetbridge.agent.waiting import CANCEL_AGAIN_SECONDS

log = structlog.get_logger(__name__)


class TaskDiedError(AgentError):
    """A task that runs as long as the agent came to an end."""


class SideTasks:
    """
    The tasks of one agent. An error in any of them, or the end of one that never ends, is a failure.

    ``asyncio.TaskGroup`` would cancel the others at once; an agent has running work to end in order first.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    def run_forever(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task whose end, with or without an error, is a failure."""
        self._start(name, work).add_done_callback(self._must_not_end)

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that may end; only an error in it is a failure."""
        self._start(name, work)

    async def failure(self) -> NoReturn:
        """Wait until a task fails and raise its error."""
        await self._failed.wait()
        assert self._failure is not None  # noqa: S101 - set together with the event
        raise self._failure

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they are done; one that ignores it is cancelled again."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_AGAIN_SECONDS)

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if error := task.exception():
            if not isinstance(error, AgentError):
                log.error("side task failed", task=task.get_name(), exc_info=error)
            self._fail(error)

    def _must_not_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._fail(TaskDiedError(f"the agent's task '{task.get_name()}' ended, which it never should"))

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()
