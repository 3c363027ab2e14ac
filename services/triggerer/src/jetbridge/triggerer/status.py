"""What a triggerer counts, for those who watch it."""

from __future__ import annotations

from jetbridge.agent.status import AgentMetrics
from jetbridge.telemetry.alive import STUCK_SECONDS
from jetbridge.triggerer.exchange import Exchange


class TriggererMetrics(AgentMetrics):
    """Triggers that run here, and what they fired that the plane does not have yet."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__("triggerer")
        self._exchange = exchange
        running = self.all.gauge("running", "triggers", "Triggers that run here, those that are ending too")
        running.set_function(lambda: len(exchange.running()))
        kept = self.all.gauge(
            "undelivered", "triggers", "Triggers of which something was not taken by the plane yet"
        )
        kept.set_function(lambda: len(exchange.outbox.triggers()))

    def is_well(self) -> bool:
        """Say whether the supervisor's loop came round of late. May be called from any thread."""
        return self._exchange.silent_seconds() < STUCK_SECONDS
