"""
The executor's side of the bus: a thread with an event loop, which owns the connection.

Airflow's scheduler is one synchronous loop that does everything. It must never wait for the network, so it
leaves its wishes here and later looks what became of them.

The thread is started by ``start``, which Airflow calls in the process that runs the scheduler's loop.
Nothing is started in ``__init__``: other processes make executors too, to read logs for example. A process
forked after that (a LocalExecutor beside this one) has no such thread and never calls the link.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tasks import end_tasks
from jetbridge.bus.workloads import NewWorkload, VersionedWorkload
from jetbridge.scheduler import handover
from jetbridge.scheduler.history import HistoryEntry
from jetbridge.scheduler.retry import Persistence, Trouble
from jetbridge.scheduler.session import Session
from jetbridge.scheduler.settings import SchedulerSettings

_END_SECONDS = 5.0
"""For closing the connection and the loop. The thread is a daemon, so nothing waits for it longer."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class BusLink:
    """The :class:`~jetbridge.scheduler.ports.Link` to NATS. Usable between ``start`` and ``stop``, once."""

    _loop: asyncio.AbstractEventLoop
    _stopping: asyncio.Event
    _session: Session
    _persist: Persistence

    def __init__(self, bus: BusSettings, settings: SchedulerSettings) -> None:
        self._bus_settings = bus
        self._settings = settings
        self._thread = threading.Thread(target=self._run, name="jetbridge-link", daemon=True)
        self._running = threading.Event()
        self._news = threading.Event()
        self._nudged = threading.Event()
        self._calls: deque[tuple[Coroutine[Any, Any, Any], Future[Any]]] = deque()
        self._woken = False
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Begin; whether the bus answers or not."""
        self._thread.start()
        self._running.wait()  # for the thread to have its loop, which takes no network

    def stop(self, flush_seconds: float) -> None:
        """Let what is on its way arrive for at most ``flush_seconds``, then end."""
        if not self._thread.is_alive():
            return
        with suppress(TimeoutError):
            self._call(self._flush(flush_seconds)).result(flush_seconds + _END_SECONDS)
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_END_SECONDS)

    def submit(
        self, workload: NewWorkload, traceparent: str | None, *, queued_at: datetime | None = None
    ) -> Future[int]:
        """Hand a workload over, however long the bus is away; the result is its submission."""

        async def hand_over() -> int:
            if queued_at is None:
                return await handover.submit(self._persist, workload, traceparent)
            return await handover.resume(self._persist, workload, queued_at, traceparent)

        return self._call(self._in_turn(workload.workload_id, hand_over))

    def remove(self, workload_id: str, submission: int | None = None) -> None:
        """Delete the workload's record, but only while it is of ``submission`` if that is given."""

        async def remove() -> None:
            await self._persist(lambda store: handover.remove(store, workload_id, submission))

        self._call(self._in_turn(workload_id, remove)).add_done_callback(_log_failure)

    def record(self, workload_id: str) -> VersionedWorkload | None:
        """Return the workload's record as last seen."""
        return self._session.record(workload_id)

    def exists(self, workload_id: str) -> Future[bool]:
        """Ask the bus whether the workload has a record, however long it is away."""
        return self._call(self._exists(workload_id))

    def ask(self, workload_ids: Collection[str], wait_seconds: float) -> Collection[str] | None:
        """Return those workloads that have a record now; None when the bus did not say in time. Waits."""

        async def ask_all() -> list[bool]:
            return await asyncio.gather(*map(self._exists, workload_ids))

        answer = self._call(ask_all())
        try:
            found = answer.result(wait_seconds)
        except TimeoutError:
            answer.cancel()
            return None
        return {workload_id for workload_id, there in zip(workload_ids, found, strict=True) if there}

    def abandoned(self) -> list[VersionedWorkload]:
        """Return finished records that should have been taken note of long ago, each once in a while."""
        abandoned = self._session.abandoned
        return [abandoned.popleft() for _ in range(len(abandoned))]

    def history(self) -> list[HistoryEntry]:
        """Return new entries for the audit log; those of the call before are confirmed as written."""
        return self._session.history.take()

    def nudged(self) -> bool:
        """Say whether a nudge came since the last call."""
        nudged = self._nudged.is_set()
        self._nudged.clear()
        return nudged

    def wait_for_news(self, seconds: float) -> bool:
        """Wait until something changed since the last call; False when nothing did. Waits."""
        there_is_some = self._news.wait(seconds)
        self._news.clear()
        return there_is_some

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """
        Run a coroutine in the thread, as ``run_coroutine_threadsafe`` does, but wake it once for many.

        Waking is a system call, after which the scheduler's thread waits for the interpreter's lock while
        this one works: up to 5 ms (``sys.getswitchinterval``) for each workload of a heartbeat.
        """
        future: Future[T] = Future()
        future.add_done_callback(lambda _: self._news.set())
        self._calls.append((coroutine, future))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._begin)
        return future

    # -- in the thread

    def _run(self) -> None:
        asyncio.run(self._main())

    def _begin(self) -> None:
        """Begin what was called for since the last time."""
        self._woken = False  # before looking: what is appended from now on wakes us again
        while self._calls:
            coroutine, future = self._calls.popleft()
            if future.cancelled():
                coroutine.close()
                continue
            task = self._loop.create_task(coroutine)
            task.add_done_callback(partial(_settle, future))
            future.add_done_callback(partial(self._cancel, task))

    def _cancel(self, task: asyncio.Task[Any], future: Future[Any]) -> None:
        if future.cancelled():
            with suppress(RuntimeError):  # the loop has ended, and the task with it
                self._loop.call_soon_threadsafe(task.cancel)

    async def _main(self) -> None:
        self._loop, self._stopping, trouble = asyncio.get_running_loop(), asyncio.Event(), Trouble()
        self._session = Session(self._bus_settings, self._settings, trouble, self._news.set, self._nudge)
        self._persist = Persistence(self._session.connected, trouble, self._settings.submit_concurrency)
        session = asyncio.create_task(self._session.run(), name="session")
        self._running.set()
        await self._stopping.wait()
        await end_tasks([session])  # what is still under way is cancelled by asyncio.run

    def _nudge(self) -> None:
        self._nudged.set()
        self._news.set()

    async def _in_turn(self, workload_id: str, operation: Callable[[], Awaitable[T]]) -> T:
        """Run operations on one workload one after the other; asyncio's locks are fair."""
        turn = self._turns.setdefault(workload_id, asyncio.Lock())
        task = asyncio.current_task()
        assert task  # noqa: S101 - for the type checker: this is a coroutine
        self._under_way.add(task)
        try:
            async with turn:
                return await operation()
        finally:
            self._under_way.discard(task)

    async def _exists(self, workload_id: str) -> bool:
        return await self._persist(lambda store: handover.exists(store, workload_id))

    async def _flush(self, seconds: float) -> None:
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=seconds)


def _settle(future: Future[Any], task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        future.cancel()
        return
    error = task.exception()
    with suppress(InvalidStateError):  # cancelled at this moment
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


def _log_failure(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()):
        log.error("link.removal_failed", error=f"{type(error).__name__}: {error}")
