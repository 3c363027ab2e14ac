"""What operators want of agents, as the agents are told: from the mirror, in every answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from jetbridge.bus.kv import Versioned
from jetbridge.bus.orders import is_draining
from jetbridge.contracts import api
from jetbridge.contracts.records import OrderRecord
from jetbridge.gateway.known import Known


class Orders:
    """Answers from memory; a change reaches an open poll in the moment in which the mirror has it."""

    def __init__(self, known: Known[OrderRecord]) -> None:
        self.known = known

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(agent)`` when the orders for an agent may have changed."""

        def changed(agent: str, _order: Versioned[OrderRecord] | None) -> None:
            listener(agent)

        self.known.mirror.on_change(changed)

    def is_cordoned(self, agent: str) -> bool:
        """Say whether the agent gets no new work."""
        return self.known.get(agent) is not None

    def revision(self, agent: str) -> int:
        """Return which version of the orders holds; 0 for none."""
        order = self.known.get(agent)
        return order.revision if order else 0

    def of(self, agent: str, instance: str) -> api.Orders | None:
        """Return what this process of the agent is to be told now."""
        order = self.known.get(agent)
        if order is None:
            return None
        drain = order.record.drain
        if drain is None or not is_draining(order.record, instance):
            return api.Orders(cordoned=True)
        # Seconds from now: the agent's clock need not agree with the plane's.
        left = (drain.hand_over_at - datetime.now(UTC)).total_seconds()
        return api.Orders(cordoned=True, drain=True, hand_over_in_seconds=max(0.0, left))
