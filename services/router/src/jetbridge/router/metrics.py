"""What the router counts."""

from __future__ import annotations

from jetbridge.telemetry.metrics import Metrics


class RouterMetrics:
    """Leases taken back, work put back into the queue or moved, queues that starve, failed steps."""

    def __init__(self) -> None:
        self.metrics = Metrics("router")
        self.taken_back = self.metrics.counter(
            "taken_back", "leases", "Leases taken back from lost agents.", ["action", "reason"]
        )
        self.requeued = self.metrics.counter("requeued", "workloads", "Workloads put back into the queue.")
        self.moved = self.metrics.counter(
            "moved", "workloads", "Workloads moved to a queue that somebody serves."
        )
        self.starving = self.metrics.gauge(
            "starving", "workloads", "Workloads that wait in a queue without a healthy agent.", ["queue"]
        )
        self.failed_steps = self.metrics.counter(
            "step", "errors", "Steps that failed and are tried again.", ["step"]
        )
