"""
One connection to the bus within the link's thread: opened, kept, opened again.

A connection that was once made repairs itself (``jetbridge.bus.connection``). What is tried again here is
the first connection, for the scheduler may start before NATS, and everything that ended unexpectedly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import structlog

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.broker import BrokerBus, open_broker
from jetbridge.bus.connection import Bus
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.nudges import on_nudge
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import VersionedWorkload, WorkloadStore
from jetbridge.contracts.records import AgentRecord, WorkloadRecord, WorkloadState
from jetbridge.scheduler import history
from jetbridge.scheduler.history import HistoryQueue
from jetbridge.scheduler.retry import RETRY_SECONDS, TROUBLE, Trouble
from jetbridge.scheduler.settings import SchedulerSettings

CONNECTION_NAME = "jetbridge-scheduler"
_SWEEP_LIMIT_SECONDS = 60.0
_RELEASED_REMEMBERED = 10_000
"""More than the agents of a site that fails hold together."""

log = structlog.get_logger(__name__)


class ConsumerLostError(Exception):
    """Somebody deleted what this session is bound to, or the bus lost its data."""


@dataclass(frozen=True)
class _Open:
    """What there is while there is a connection."""

    bus: Bus
    store: WorkloadStore
    workloads: BucketMirror[WorkloadRecord]
    agents: BucketMirror[AgentRecord]


class Session:
    """
    The bus, as far as it is there.

    :param news: called in the loop when a record changed or an entry for the history arrived
    :param nudged: called in the loop when somebody says that there is something to schedule
    """

    def __init__(
        self,
        bus: BusSettings,
        settings: SchedulerSettings,
        trouble: Trouble,
        news: Callable[[], None],
        nudged: Callable[[], None],
    ) -> None:
        self.history = HistoryQueue(news)
        self.abandoned: deque[VersionedWorkload] = deque()
        self._bus_settings = bus
        self._settings = settings
        self._trouble = trouble
        self._news = news
        self._nudged = nudged
        self._open: _Open | None = None
        self._opened = asyncio.Event()
        self._finished_since: dict[str, float] = {}
        self._released: dict[str, VersionedWorkload] = {}

    def record(self, workload_id: str) -> VersionedWorkload | None:
        """Return a workload's record as last seen. May be called from any thread."""
        current = self._open
        seen = current.workloads.get(workload_id) if current else None
        return seen or self._released.get(workload_id)

    async def connected(self) -> WorkloadStore:
        """Return the store, waiting while there is no connection."""
        while True:
            await self._opened.wait()
            current = self._open
            if current and current.bus.client.is_connected:
                return current.store
            # nats-py would buffer the request and send it, too late, after it has reconnected. It offers
            # nothing to wait for, and tries to reconnect twice a second.
            await asyncio.sleep(RETRY_SECONDS / 2)

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        while True:
            try:
                async with open_broker(self._bus_settings, CONNECTION_NAME) as bus:
                    await self._serve(bus)
            except TROUBLE as exc:
                self._trouble.begins(exc)
            except Exception:
                log.exception("link.session_failed")
            finally:
                self._opened.clear()
            await asyncio.sleep(RETRY_SECONDS)

    async def _serve(self, bus: BrokerBus) -> None:
        store, agents = await WorkloadStore.open(bus), await AgentStore.open(bus)
        self._open = _Open(bus, store, BucketMirror(bus, store.bucket), BucketMirror(bus, agents.bucket))
        self._finished_since.clear()
        self._open.workloads.on_change(self._changed)
        history.subscribe(bus.broker, self.history, self._find_agent)
        self.history.open()
        try:
            await bus.broker.start()
            await on_nudge(bus, self._nudged)
            self._trouble.ends()
            self._opened.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._open.workloads.run(), name="workloads")
                tasks.create_task(self._open.agents.run(), name="agents")
                tasks.create_task(self._sweep(bus, store), name="sweep")
        except* ConsumerLostError as lost:
            log.warning("link.session_ends", reason=str(lost.exceptions[0]))  # and the next one begins
        finally:
            self.history.close()

    def _find_agent(self, name: str) -> AgentRecord | None:
        found = self._open.agents.get(name) if self._open else None
        return found.record if found else None

    def _changed(self, workload_id: str, workload: VersionedWorkload | None) -> None:
        if workload and workload.record.state is WorkloadState.FINISHED:
            self._finished_since.setdefault(workload_id, monotonic())
        else:
            self._finished_since.pop(workload_id, None)
        self._remember_released(workload_id, workload)
        self._news()

    def _remember_released(self, workload_id: str, workload: VersionedWorkload | None) -> None:
        """
        Keep the last of a released workload, whose record goes as soon as its task was queued anew.

        That takes milliseconds, and the scheduler looks every second or so. A record that merely vanished
        would mean the loss of a workload.
        """
        if workload is not None:
            self._released.pop(workload_id, None)
            if workload.record.state is WorkloadState.RELEASED:
                self._released[workload_id] = workload
        if len(self._released) > _RELEASED_REMEMBERED:
            del self._released[next(iter(self._released))]

    async def _sweep(self, bus: Bus, store: WorkloadStore) -> None:
        """Look for what nobody cleared away, now and then; raises what should begin the session anew."""
        while True:
            await asyncio.sleep(self._settings.sweep_interval_seconds)
            self._look_for_abandoned()
            try:
                async with asyncio.timeout(_SWEEP_LIMIT_SECONDS):
                    dropped = await store.bucket.sweep(self._settings.deletion_marker_seconds)
                    bound = await history.has_consumer(bus.js)
            except TROUBLE as exc:
                log.info("link.sweep_put_off", error=type(exc).__name__)
                continue
            log.debug("link.swept", markers=dropped)
            if not bound:
                raise ConsumerLostError(f"the consumer {history.CONSUMER} is gone from the bus")

    def _look_for_abandoned(self) -> None:
        # By our own monotonic clock, from when we saw it finished: clocks of other machines may differ.
        limit = monotonic() - self._settings.abandoned_after_seconds
        for workload_id, since in self._finished_since.items():
            if since < limit and (workload := self.record(workload_id)):
                self.abandoned.append(workload)
        if self.abandoned:
            self._news()
