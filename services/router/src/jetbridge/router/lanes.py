"""
Rounds over all lanes: report those that have work and nobody to take it, and move what may be moved.

Level-triggered like :mod:`~jetbridge.router.rounds`. What must happen once is decided by compare-and-set: the
lane's record says that the lane was reported, each workload's record that its history was told or that it
was moved. Of several routers, the one whose write made the lane's record moves the work, so that it keeps its
order; the others help when it stands still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import structlog

from jetbridge.bus.errors import BusError, ConflictError
from jetbridge.bus.health import health_key
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.policies import Policies
from jetbridge.bus.starving import lane_key
from jetbridge.bus.workloads import VersionedWorkload, WorkloadStore, submission_of
from jetbridge.contracts.failover import LaneServed, LaneStarving, WorkloadStarving
from jetbridge.contracts.records import AgentRecord, HealthRecord, LaneRecord, OrderRecord, WorkloadRecord
from jetbridge.router.metrics import RouterMetrics
from jetbridge.router.moving import Mover
from jetbridge.router.starvation import (
    STUCK_SECONDS,
    WAITING,
    StarvationWatch,
    Starving,
    destination,
    takes_work,
    waiting_in,
)

log = structlog.get_logger(__name__)

_PER_ROUND = 2000
"""Workloads of one lane that are told about or moved in one round; the rest follow in the next."""


@dataclass(frozen=True, kw_only=True)
class LaneView:
    """What the router sees. All are kept by their own tasks."""

    workloads: BucketMirror[WorkloadRecord]
    agents: BucketMirror[AgentRecord]
    health: BucketMirror[HealthRecord]
    orders: BucketMirror[OrderRecord]
    lanes: BucketMirror[LaneRecord]
    policies: Policies

    def is_complete(self) -> bool:
        """Say whether all of it was read since the last lost connection; half of it proves nothing."""
        mirrors = (
            self.workloads,
            self.agents,
            self.health,
            self.orders,
            self.lanes,
            self.policies.mirror,
        )
        return all(mirror.ready.is_set() for mirror in mirrors)

    def served(self) -> frozenset[str]:
        """Return the queues that at least one agent can take work from."""
        return frozenset(
            queue
            for _, entry in self.agents.items()
            if takes_work(entry.record, self._health_of(entry.record), self._order_for(entry.record))
            for queue in entry.record.queues
        )

    def _health_of(self, agent: AgentRecord) -> HealthRecord | None:
        entry = self.health.get(health_key(agent.name, agent.instance))
        return entry.record if entry else None

    def _order_for(self, agent: AgentRecord) -> OrderRecord | None:
        entry = self.orders.get(agent.name)
        return entry.record if entry else None

    def waiting_for(self, queue: str) -> Iterator[VersionedWorkload]:
        """Return what waits for the agents of a queue, oldest first."""
        found = [
            entry
            for _, entry in self.workloads.items()
            if entry.record.state in WAITING and entry.record.waits_in == queue
        ]
        return iter(sorted(found, key=submission_of))


@dataclass
class LaneRounds:
    """Watches the lanes; see the module."""

    view: LaneView
    bucket: RecordBucket[LaneRecord]
    store: WorkloadStore
    mover: Mover
    metrics: RouterMetrics
    interval_seconds: float
    clock: Callable[[], float] = time.monotonic
    _watch: StarvationWatch = field(default_factory=StarvationWatch)
    _own: set[str] = field(default_factory=set)
    """Lanes that this router was the first to report."""

    async def run(self) -> None:
        """Make rounds for ever; sooner than ``interval_seconds`` when a lane is about to be due."""
        while True:
            due = await self.round()
            await asyncio.sleep(min(self.interval_seconds, max(due, 0.1)))

    async def round(self) -> float:
        """Look once and act; return the seconds until a lane is due. Trouble with one stops no other."""
        if not self.view.is_complete():
            self._watch.forget()
            return self.interval_seconds
        served = self.view.served()
        waiting = waiting_in(entry.record for _, entry in self.view.workloads.items())
        starving = self._watch.take(self.clock(), waiting, served)
        await self._end_reports({lane.queue for lane in starving}, waiting)
        self.metrics.starving.clear()
        due = self.interval_seconds
        for lane in starving:
            after = self.view.policies.failover(lane.queue).starving_after_seconds
            if lane.seconds < after:
                due = min(due, after - lane.seconds)
                continue
            self.metrics.starving.labels(lane.queue).set(lane.waiting)
            try:
                await self._act(lane, served)
            except ConflictError:
                continue  # another router was faster; the mirrors will show it
            except BusError as exc:
                self.metrics.failed_steps.labels("lane").inc()
                log.warning("router.lane_failed", queue=lane.queue, error=str(exc))
        return due

    # -- one lane that starves

    async def _act(self, lane: Starving, served: frozenset[str]) -> None:
        reason = f"no healthy agent serves queue {lane.queue!r}"
        await self._report(lane, reason)
        stays = [
            one for one in self.view.waiting_for(lane.queue) if self._destination(one.record, served) is None
        ]
        await self._note(stays[:_PER_ROUND], reason)
        to_move = lane.waiting - len(stays)
        if to_move > 0 and (lane_key(lane.queue) in self._own or lane.stuck_seconds >= STUCK_SECONDS):
            await self.mover.move(lane.queue, self._destination, reason, _PER_ROUND)

    def _destination(self, record: WorkloadRecord, served: frozenset[str] | None = None) -> str | None:
        policy = self.view.policies.failover(record.queue)
        return destination(record, policy, self.view.served() if served is None else served)

    async def _report(self, lane: Starving, reason: str) -> None:
        """Write the lane's record, the event, and that it was published: each as far as it is missing."""
        key = lane_key(lane.queue)
        entry = self.view.lanes.get(key)
        if entry is None:
            record = LaneRecord(
                queue=lane.queue, since=datetime.now(UTC), waiting=lane.waiting, reason=reason
            )
            entry = Versioned(record, await self.bucket.create(key, record))
            self._own.add(key)
            log.warning("lane.starving", queue=lane.queue, waiting=lane.waiting, reason=reason)
        if not entry.record.told:
            event = LaneStarving(
                queue=lane.queue, waiting=lane.waiting, seconds=round(lane.seconds, 1), reason=reason
            )
            await self.store.publish_event(event, f"lane.{key}.{entry.revision}.starving")
            told = msgspec.structs.replace(entry.record, told=True)
            await self.bucket.update(key, told, entry.revision)

    async def _note(self, workloads: list[VersionedWorkload], reason: str) -> None:
        """Have the history of each workload say that it waits for nobody, once."""
        for workload in workloads:
            if workload.record.starving:
                continue
            submission = submission_of(workload)
            event = WorkloadStarving(
                workload_id=workload.record.workload_id,
                submission=submission,
                queue=workload.record.waits_in,
                coordinates=workload.record.coordinates,
                reason=reason,
            )
            message_id = f"{workload.record.workload_id}.{submission}.starving.{lane_key(event.queue)}"
            await self.store.publish_event(event, message_id)
            with suppress(ConflictError):  # it moved on, or another router noted it
                await self.store.note_starving(workload)

    # -- and its end

    async def _end_reports(self, starving: set[str], waiting: dict[str, int]) -> None:
        for key, entry in self.view.lanes.items():
            queue = entry.record.queue
            if queue in starving:
                continue
            self._own.discard(key)
            try:
                await self.bucket.delete(key, entry.revision)
                event = LaneServed(queue=queue, waiting=waiting.get(queue, 0))
                await self.store.publish_event(event, f"lane.{key}.{entry.revision}.served")
            except ConflictError:
                continue  # another router was faster
            except BusError as exc:
                log.warning("router.lane_failed", queue=queue, error=str(exc))
                continue
            log.info("lane.served", queue=queue, waiting=waiting.get(queue, 0))
