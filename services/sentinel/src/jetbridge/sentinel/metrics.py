"""What the plane sentinel counts."""

from __future__ import annotations

from jetbridge.contracts.records import Health
from jetbridge.telemetry.metrics import Metrics


class SentinelMetrics:
    """Agents by health, and how often that changed."""

    def __init__(self) -> None:
        self.metrics = Metrics("sentinel")
        self._agents = self.metrics.gauge("known", "agents", "Processes of agents by health.", ["health"])
        self.changes = self.metrics.counter("verdict_changed", "agents", "Changes of health.", ["health"])

    def count(self, verdicts: list[Health]) -> None:
        """Set the gauge to what was seen at the last look."""
        for health in Health:
            self._agents.labels(health.value).set(verdicts.count(health))
