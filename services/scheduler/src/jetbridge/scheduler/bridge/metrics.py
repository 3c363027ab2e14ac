"""What the bridge counts."""

from __future__ import annotations

from jetbridge.telemetry.metrics import Metrics


class BridgeMetrics:
    """Counters and times of one bridge process; ``outcome`` is ``done`` or a refusal's code."""

    def __init__(self, metrics: Metrics) -> None:
        self.requests = metrics.counter(
            "handled", "requests", "Requests by operation and outcome.", ["operation", "outcome"]
        )
        self.seconds = metrics.histogram(
            "request", "seconds", "From arrival to answer, by operation.", ["operation"]
        )
        self.waiting = metrics.gauge(
            "waiting", "requests", "Requests that have arrived and not been answered."
        )
