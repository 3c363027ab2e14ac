"""What a worker needs of others: of its session with the gateway, and of what runs workloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jetbridge.contracts.api import AcceptResponse, ReportRequest, ReportResponse
from jetbridge.worker.frames import Exited, Hold, Order


class Leases(Protocol):
    """The calls of a session that concern leases."""

    async def accept(self, lease: str) -> AcceptResponse:
        """Take an offer; repeated until answered."""
        ...

    async def report(self, lease: str, body: ReportRequest) -> ReportResponse:
        """Report an end; repeated until answered."""
        ...


class Processes(Protocol):
    """What runs workloads; see ``forkserver_client.ForkServerKeeper``."""

    @property
    def ready(self) -> bool:
        """Whether workloads can be started now."""
        ...

    async def keep(self, changed: Callable[[], None]) -> None:
        """Stay ready for as long as the agent runs; call ``changed`` when ``ready`` changes."""
        ...

    async def wait_ready(self) -> None:
        """Wait until workloads can be started."""
        ...

    async def run(self, order: Order, hold: Hold, good_seconds: float = 0.0) -> Exited:
        """Run a workload and return how it ended; it is killed when its time passes without a ``hold``."""
        ...

    async def hold(self, hold: Hold) -> None:
        """Say until when the leases are good."""
        ...

    async def stop(self, lease: str, grace_seconds: float) -> None:
        """Have a workload end."""
        ...

    async def hand_over(self, lease: str) -> None:
        """Have a workload end at once, without a word of it to Airflow."""
        ...

    async def close(self) -> bool:
        """End everything; say whether nothing is left."""
        ...
