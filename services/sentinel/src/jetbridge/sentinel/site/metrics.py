"""What the sentinel of a site counts, for its owner."""

from __future__ import annotations

from collections import Counter

from jetbridge.sentinel.site.view import SiteView
from jetbridge.telemetry.metrics import Metrics


class SiteMetrics:
    """Agents by what is seen of them, checks, and ends that the plane was told of."""

    def __init__(self) -> None:
        self.metrics = Metrics("site_sentinel")
        self._agents = self.metrics.gauge("seen", "agents", "Agents by what is seen of them.", ["state"])
        self._unhealthy = self.metrics.gauge("unhealthy", "agents", "Agents that are not as they should be.")
        self._failing = self.metrics.gauge(
            "failing_check", "errors", "1 for something that agents need and that does not answer.", ["check"]
        )
        self.ends = self.metrics.counter(
            "told_end", "agents", "Ends of agents, by what the plane made of them.", ["outcome"]
        )

    def take(self, view: SiteView) -> None:
        """Set the gauges to what is seen now."""
        self._agents.clear()
        for state, count in Counter(one.state for one in view.agents).items():
            self._agents.labels(state).set(count)
        self._unhealthy.set(sum(not one.healthy for one in view.agents))
        for check in view.checks:
            self._failing.labels(check.name).set(not check.ok)
