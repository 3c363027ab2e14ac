"""What a worker counts, for those who watch it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from jetbridge.agent.status import AgentMetrics
from jetbridge.telemetry.measures import TASK_STARTUP_SECONDS, Takers
from jetbridge.telemetry.status import Pulse
from jetbridge.worker.forkserver_client import ForkServerKeeper, Launch
from jetbridge.worker.frames import Exited, Hold, Order

_DURATIONS_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class Counted(Protocol):
    """What is looked at each second."""

    def free_slots(self) -> int:
        """Return how many offers could be accepted now."""
        ...

    def leases(self) -> tuple[str, ...]:
        """Return the leases that are held."""
        ...


class WorkerMetrics(AgentMetrics):
    """Slots, leases, and how workloads began and ended."""

    def __init__(self) -> None:
        super().__init__("worker")
        self.free = self.all.gauge("free", "slots", "Workloads that could be taken now")
        self.held = self.all.gauge("held", "leases", "Leases that are held, those being reported included")
        self.ended = self.all.counter("ended", "workloads", "Workloads whose processes ended", ["outcome"])
        self.took = self.all.histogram(
            "workload", "seconds", "From the fork to the end of the processes", buckets=_DURATIONS_SECONDS
        )
        self.startup = self.all.histogram(
            "task_startup", "seconds", "From the accepted lease until the task's own process has its Dag"
        )

    @property
    def takers(self) -> Takers:
        """Return what takes the measures of this worker's processes."""
        return {**super().takers, TASK_STARTUP_SECONDS: self.startup.observe}


class MeasuredKeeper(ForkServerKeeper):
    """A fork server's keeper that counts what it ran."""

    def __init__(self, launch: Launch, bury: Callable[[], Awaitable[bool]], metrics: WorkerMetrics) -> None:
        super().__init__(launch, bury)
        self._metrics = metrics

    async def run(self, order: Order, hold: Hold, good_seconds: float = 0.0) -> Exited:
        """Run an order and return how it ended."""
        begun = time.monotonic()
        how = await super().run(order, hold, good_seconds)
        self._metrics.took.observe(time.monotonic() - begun)
        self._metrics.ended.labels(how.outcome.value).inc()
        return how


class WorkerPulse(Pulse):
    """Shows that the event loop turns, and what the worker holds."""

    def __init__(self, worker: Counted, metrics: WorkerMetrics) -> None:
        super().__init__()
        self._worker = worker
        self._metrics = metrics

    def beat(self) -> None:
        """Take down what is so now."""
        super().beat()
        self._metrics.free.set(self._worker.free_slots())
        self._metrics.held.set(len(self._worker.leases()))
