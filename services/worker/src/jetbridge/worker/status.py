"""What a worker says of itself to those who scrape and probe it. Off unless a port is set."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn, Protocol

from jetbridge.telemetry.metrics import Metrics
from jetbridge.telemetry.status import status_server
from jetbridge.worker.forkserver_client import ForkServerKeeper, Launch
from jetbridge.worker.frames import Exited, Hold, Order

PULSE_SECONDS = 1.0

STUCK_SECONDS = 30.0
"""An event loop that has not turned for this long does nothing any more, heartbeats included."""

_DURATIONS_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class StatusPortError(Exception):
    """The port cannot be listened on; the text says why."""


class Counted(Protocol):
    """What is looked at each second."""

    def free_slots(self) -> int:
        """Return how many offers could be accepted now."""
        ...

    def leases(self) -> tuple[str, ...]:
        """Return the leases that are held."""
        ...


class WorkerMetrics:
    """Slots, leases, and how workloads ended."""

    def __init__(self) -> None:
        self.all = Metrics("worker")
        self.free = self.all.gauge("free", "slots", "Workloads that could be taken now")
        self.held = self.all.gauge("held", "leases", "Leases that are held, those being reported included")
        self.ended = self.all.counter("ended", "workloads", "Workloads whose processes ended", ["outcome"])
        self.took = self.all.histogram(
            "workload", "seconds", "From the fork to the end of the processes", buckets=_DURATIONS_SECONDS
        )


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


class Pulse:
    """Shows that the event loop turns."""

    def __init__(self, worker: Counted, metrics: WorkerMetrics) -> None:
        self._worker = worker
        self._metrics = metrics
        self._last = time.monotonic()

    async def run(self) -> NoReturn:
        """Look each second, until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(PULSE_SECONDS)

    def beat(self) -> None:
        """Take down what is so now."""
        self._last = time.monotonic()
        self._metrics.free.set(self._worker.free_slots())
        self._metrics.held.set(len(self._worker.leases()))

    def is_well(self) -> bool:
        """Say whether the loop turned of late. May be called from any thread."""
        return time.monotonic() - self._last < STUCK_SECONDS


@contextmanager
def served(port: int, metrics: WorkerMetrics, pulse: Pulse) -> Iterator[None]:
    """Serve status while the block runs, if there is a port; raises :class:`StatusPortError`."""
    if not port:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(status_server(port, metrics.all, pulse.is_well))
        except OSError as error:
            raise StatusPortError(f"port {port} for /metrics cannot be used: {error.strerror}") from error
        yield
