"""What the router counts."""

from __future__ import annotations

from jetbridge.telemetry.metrics import Metrics


class RouterMetrics:
    """Leases taken back, work put back into the queue, steps that failed."""

    def __init__(self) -> None:
        self.metrics = Metrics("router")
        self.taken_back = self.metrics.counter(
            "taken_back", "leases", "Leases taken back from lost agents.", ["action"]
        )
        self.requeued = self.metrics.counter("requeued", "workloads", "Workloads put back into the queue.")
        self.failed_steps = self.metrics.counter(
            "step", "errors", "Steps that failed and are tried again.", ["step"]
        )
