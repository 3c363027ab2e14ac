"""Each agent's process in one word, for metrics: its health, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass

from jetbridge.bus.fleet import AgentState, state_of
from jetbridge.bus.health import has_ended, health_key
from jetbridge.bus.mirror import BucketMirror
from jetbridge.contracts.presence import agent_of
from jetbridge.contracts.records import AgentRecord, Health, HealthRecord, OrderRecord


@dataclass(frozen=True)
class States:
    """Joins what is known from the buckets; lags them by milliseconds."""

    health: BucketMirror[HealthRecord]
    orders: BucketMirror[OrderRecord]
    agents: BucketMirror[AgentRecord]

    def of(self, member: str) -> AgentState:
        """
        Return the state of a presence member.

        One that another process of the same agent took over from is gone: nobody waits for it.
        """
        name, instance = agent_of(member)
        agent, health, order = self.agents.get(name), self._health(member), self.orders.get(name)
        if agent is None or agent.record.instance != instance:
            return AgentState.GONE
        return state_of(
            instance, health, order.record if order else None, says_draining=agent.record.draining
        )

    def has_left(self, member: str) -> bool:
        """
        Say whether the process of a member said goodbye, so that nobody needs to hear of it again.

        One that was seen to die is counted as lost until another takes its place or it is forgotten.
        """
        health = self._health(member)
        return health is not None and has_ended(health) and health.health is Health.GONE

    def _health(self, member: str) -> HealthRecord | None:
        entry = self.health.get(health_key(*agent_of(member)))
        return entry.record if entry else None
