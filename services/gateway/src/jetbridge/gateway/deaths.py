"""
Ends of agents that are known for certain: a site's sentinel saw one, or the agent says goodbye itself.

The health record says so with ``attested``, and the router acts on that at once. A statement is about one
process, by the agent's name *and* instance, so one that comes late cannot touch the process that took over.

==============================================================  =======================
who speaks, about whom                                           answer
==============================================================  =======================
not a sentinel, or one without a site                            403 forbidden
about itself, or about an agent of another site                  403 forbidden
about an agent nobody knows                                      404 not-found
about another process than the agent's current one (late, …)     409 outdated
about a process whose end is known (twice)                       409 already-known
==============================================================  =======================

When the gateway dies after the record, the repeated statement is answered with 409 already-known, and only
the event is missing: a line of history, no decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.health import HealthStore, health_key
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.api import GoodbyeRequest, GoodbyeResponse
from jetbridge.contracts.failover import AgentHealthChanged
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.records import AgentRecord, Health, HealthRecord
from jetbridge.contracts.sites import ROLE, AttestDeathRequest, AttestDeathResponse
from jetbridge.gateway.auth import Caller
from jetbridge.gateway.known import Known
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.problems import ProblemError, unavailable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeathDesk:
    """Where ends of agents' processes are told."""

    agents: Known[AgentRecord]
    health: HealthStore
    events: WorkloadStore
    metrics: GatewayMetrics

    async def attest(self, caller: Caller, request: AttestDeathRequest) -> AttestDeathResponse:
        """Take the word of a sentinel that an agent's process is gone; raises the problem to answer with."""
        require_sentinel(caller)
        agent = await self._agent(request.agent)
        require_same_site(caller.record, agent)
        if agent.instance != request.instance:
            raise ProblemError(
                ProblemType.OUTDATED,
                f"Agent {agent.name!r} is another process by now. There is nothing to do about the old one.",
            )
        reason = f"seen by {caller.name}: {request.reason or 'its process ended'}"
        if not await self._write(agent.name, agent.instance, Health.LOST, reason):
            raise ProblemError(
                ProblemType.ALREADY_KNOWN, f"That this process of agent {agent.name!r} ended is known."
            )
        return AttestDeathResponse()

    async def goodbye(self, caller: Caller, request: GoodbyeRequest) -> GoodbyeResponse:
        """Note that the calling process ends and nothing of it runs any more."""
        reason = f"said goodbye: {request.reason}" if request.reason else "said goodbye"
        await self._write(caller.name, caller.claims.instance, Health.GONE, reason)
        return GoodbyeResponse()

    async def _agent(self, name: str) -> AgentRecord:
        if name.endswith("\n"):  # in a regular expression, $ also matches before a last line break
            raise ProblemError(ProblemType.MALFORMED, "An agent's name holds no line break.")
        # Read, not taken from the mirror: the mirror may lag behind the process that took over.
        try:
            found = await self.agents.confirm(name)
        except BusUnavailableError as exc:
            raise unavailable("The gateway cannot look the agent up because NATS is away.") from exc
        if found is None:
            raise ProblemError(ProblemType.NOT_FOUND, f"There is no agent {name!r}.")
        return found.record

    async def _write(self, agent: str, instance: str, health: Health, reason: str) -> bool:
        record = HealthRecord(
            agent=agent,
            instance=instance,
            health=health,
            since=datetime.now(UTC),
            reason=reason,
            attested=True,
        )
        written = await self.health.attest(record)
        if written is None:
            return False
        before, revision = written
        was = before.health.value if before else "unknown"
        self.metrics.ended.labels(health.value).inc()
        log.info("agent.ended", ended=agent, instance=instance, health=health.value, reason=reason)
        event = AgentHealthChanged(
            agent=agent, instance=instance, before=was, after=health.value, reason=reason, attested=True
        )
        await self.events.publish_event(event, f"{health_key(agent, instance)}.{revision}")
        return True


def require_sentinel(caller: Caller) -> None:
    """Raise 403 unless the caller registered as the sentinel of a site."""
    if caller.record.role != ROLE:
        raise ProblemError(
            ProblemType.FORBIDDEN,
            f"Agent {caller.name!r} is registered as {caller.record.role}, not as {ROLE}.",
        )
    if not caller.record.site:
        raise ProblemError(
            ProblemType.FORBIDDEN, "A sentinel speaks for a site; start it and its agents with --site NAME."
        )


def require_same_site(sentinel: AgentRecord, agent: AgentRecord) -> None:
    """Raise 403 unless the sentinel may speak for the agent."""
    if agent.name == sentinel.name:
        raise ProblemError(ProblemType.FORBIDDEN, "A sentinel cannot see its own end.")
    if agent.site != sentinel.site:
        raise ProblemError(
            ProblemType.FORBIDDEN,
            f"Agent {agent.name!r} is not of site {sentinel.site!r}; its own site's sentinel speaks for it.",
        )
