"""
Rounds over all workloads: each takes the next step of whatever needs one.

Nothing is remembered between rounds. A router that dies between two lines leaves a record in one of the
states the next round, its own or another router's, begins with; compare-and-set keeps two routers from
taking the same step, and a step taken twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from jetbridge.bus.errors import BusError, LeaseLostError
from jetbridge.bus.health import health_key, is_lost
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.failover import WorkloadReleased
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.records import AgentRecord, HealthRecord, WorkloadRecord
from jetbridge.router.decisions import Action, cause, decide, reason
from jetbridge.router.metrics import RouterMetrics
from jetbridge.router.silences import Silences
from jetbridge.telemetry.spans import span
from jetbridge.telemetry.tracing import current_traceparent, tracer

log = structlog.get_logger(__name__)
_tracer = tracer(__name__)

Requeue = Callable[[WorkloadRecord], Awaitable[None]]
"""Puts a workload back into Airflow's queue; raises :class:`RequeueError` when that has to be tried again."""


class RequeueError(Exception):
    """The bridge could not put a workload back now."""


@dataclass
class Rounds:
    """The router's state is in the buckets; this only holds what it needs to act on it."""

    workloads: BucketMirror[WorkloadRecord]
    health: BucketMirror[HealthRecord]
    store: WorkloadStore
    requeue: Requeue
    metrics: RouterMetrics
    interval_seconds: float
    agents: BucketMirror[AgentRecord] | None = None
    silences: Silences = field(default_factory=Silences)
    _due: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Make a round whenever something changed, and every ``interval_seconds`` in any case."""
        self.workloads.on_change(lambda _key, _record: self._due.set())
        self.health.on_change(lambda _key, _record: self._due.set())
        while True:
            await self.round()
            try:
                await asyncio.wait_for(self._due.wait(), self.interval_seconds)
            except TimeoutError:
                continue
            self._due.clear()

    async def round(self) -> None:
        """Take the next step of every workload that needs one. Trouble with one does not stop the others."""
        if not (self.workloads.ready.is_set() and self.health.ready.is_set()):
            return  # a half-read mirror may lack the very record that says an agent is well
        steps = [
            self._step(entry.record, action)
            for _, entry in self.workloads.items()
            if (action := self._decide(entry.record)) is not Action.NOTHING
        ]
        await asyncio.gather(*steps)

    def _decide(self, record: WorkloadRecord) -> Action:
        key = health_key(record.agent or "", record.instance)
        silent_seconds = self.silences.seconds(key, self.health.get(key))
        return decide(record, self._holder(record), silent_seconds, is_succeeded=self._is_succeeded(record))

    def _is_succeeded(self, record: WorkloadRecord) -> bool:
        """Say whether a newer process of the holder's name is there and lives."""
        agent = self.agents.get(record.agent or "") if self.agents else None
        if agent is None or agent.record.instance == record.instance:
            return False
        newer = self.health.get(health_key(agent.record.name, agent.record.instance))
        return not is_lost(newer.record if newer else None)

    def _holder(self, record: WorkloadRecord) -> HealthRecord | None:
        entry = self.health.get(health_key(record.agent or "", record.instance))
        return entry.record if entry else None

    async def _step(self, record: WorkloadRecord, action: Action) -> None:
        about = {"jetbridge.workload": record.workload_id, "jetbridge.agent": record.agent or ""}
        try:
            with span(_tracer, f"router.{action.value}", attributes=about):
                match action:
                    case Action.REQUEUE:
                        await self._put_back(record)
                    case Action.RELEASE | Action.FAIL:
                        await self._take_back(record, action)
        except LeaseLostError:
            return  # it ended or another router was faster; the mirror will show it
        except (BusError, RequeueError) as exc:
            self.metrics.failed_steps.labels(action.value).inc()
            log.warning("router.step_failed", workload=record.workload_id, step=action.value, error=str(exc))

    async def _take_back(self, record: WorkloadRecord, action: Action) -> None:
        holder = self._holder(record)
        if holder is None:
            return
        lease, why = LeaseKey(record.workload_id, record.epoch), reason(record, holder)
        if action is Action.FAIL:
            await self.store.finish(lease, record.agent or "", Outcome.FAILED, None, why)
        else:
            await self.store.release(lease, why)
        self.metrics.taken_back.labels(action.value, cause(record, holder).value).inc()
        log.info("workload.taken_back", lease=str(lease), agent=record.agent, step=action.value, reason=why)
        event = WorkloadReleased(
            workload_id=record.workload_id,
            epoch=record.epoch,
            agent=record.agent or "",
            queue=record.queue,
            coordinates=record.coordinates,
            action="fail" if action is Action.FAIL else "reroute",
            reason=why,
        )
        await self.store.publish_event(event, f"{lease}.released", current_traceparent())

    async def _put_back(self, record: WorkloadRecord) -> None:
        await self.requeue(record)
        await self.store.remove_released(LeaseKey(record.workload_id, record.epoch))
        self.metrics.requeued.inc()
        log.info("workload.requeued", workload=record.workload_id, epoch=record.epoch, reason=record.reason)
