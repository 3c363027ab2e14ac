"""What the plane sentinel counts."""

from __future__ import annotations

from jetbridge.bus.fleet import AgentState
from jetbridge.telemetry.metrics import Metrics


class SentinelMetrics:
    """Agents by state, and how often their health changed."""

    def __init__(self) -> None:
        self.metrics = Metrics("sentinel")
        self._agents = self.metrics.gauge("known", "agents", "Processes of agents by state.", ["health"])
        self.changes = self.metrics.counter("verdict_changed", "agents", "Changes of health.", ["health"])

    def count(self, states: list[AgentState]) -> None:
        """Set the gauge to what was seen at the last look."""
        for state in AgentState:
            self._agents.labels(state.value).set(states.count(state))
