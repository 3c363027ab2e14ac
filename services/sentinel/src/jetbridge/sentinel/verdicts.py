"""Verdicts into health records and events. Several sentinels may do this: of two, one write wins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from jetbridge.bus.errors import ConflictError
from jetbridge.bus.health import HealthStore, health_key
from jetbridge.bus.kv import Versioned
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.failover import AgentHealthChanged
from jetbridge.contracts.presence import agent_of
from jetbridge.contracts.records import Health, HealthRecord
from jetbridge.sentinel.metrics import SentinelMetrics
from jetbridge.sentinel.silence import Silence, SilenceWatch
from jetbridge.telemetry.spans import span
from jetbridge.telemetry.tracing import current_traceparent, tracer

log = structlog.get_logger(__name__)
_tracer = tracer(__name__)

_SEVERITY = (Health.HEALTHY, Health.SUSPECT, Health.LOST, Health.GONE)


@dataclass(frozen=True)
class Verdicts:
    """Turns proven silence into what everybody else goes by."""

    watch: SilenceWatch
    store: HealthStore
    mirror: BucketMirror[HealthRecord]
    events: WorkloadStore
    metrics: SentinelMetrics

    async def judge(self, silences: dict[str, Silence]) -> list[str]:
        """Write every changed verdict; return the members that are gone for good."""
        gone = []
        for member, silence in silences.items():
            agent, instance = agent_of(member)
            verdict = self.watch.verdict(silence.seconds)
            before = self.mirror.get(health_key(agent, instance))
            if _changes(before, verdict, fresh=silence.fresh):
                about = {"jetbridge.agent": agent, "jetbridge.health": verdict.value}
                with span(_tracer, "sentinel.verdict", attributes=about):
                    await self._change(before, agent, instance, verdict, silence.seconds)
            if verdict is Health.GONE:
                gone.append(member)
        return gone

    async def _change(
        self,
        before: Versioned[HealthRecord] | None,
        agent: str,
        instance: str,
        verdict: Health,
        seconds: float,
    ) -> None:
        record = HealthRecord(
            agent=agent,
            instance=instance,
            health=verdict,
            since=datetime.now(UTC),
            reason=_reason(verdict, seconds),
            silent_seconds=seconds,
        )
        try:
            revision = await self.store.change(before, record)
        except ConflictError:
            return  # another sentinel said it first, or our mirror lags; the next look tells
        # The event follows the record: dying in between loses a line of history, never a decision.
        was = before.record.health if before else "unknown"
        log.info("agent.health_changed", agent=agent, instance=instance, before=was, after=verdict.value)
        self.metrics.changes.labels(verdict.value).inc()
        event = AgentHealthChanged(
            agent=agent, instance=instance, before=was, after=verdict.value, reason=record.reason
        )
        name = f"{health_key(agent, instance)}.{revision}"
        await self.events.publish_event(event, name, current_traceparent())


def _changes(before: Versioned[HealthRecord] | None, verdict: Health, *, fresh: bool) -> bool:
    """
    Say whether to write.

    Only a heartbeat seen in this look makes an agent healthier: another sentinel may be a moment ahead of
    us, or our count may have started over. An attested death stands: what was seen to end is not healed.
    """
    if before is None:
        return verdict is not Health.GONE
    if before.record.attested and verdict is not Health.GONE:
        return False
    worse = _SEVERITY.index(verdict) > _SEVERITY.index(before.record.health)
    return worse or (fresh and before.record.health is not verdict)


def _reason(verdict: Health, seconds: float) -> str:
    if verdict is Health.HEALTHY:
        return "heard of"
    return f"not heard of for {seconds:.0f} s while the plane was there to hear"
