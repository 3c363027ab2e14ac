"""Trying again until it works, and saying so twice: when the trouble begins and when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

import structlog
from nats.errors import Error as NatsError

from jetbridge.bus.errors import BusError
from jetbridge.bus.workloads import WorkloadStore

RETRY_SECONDS = 0.5
TROUBLE = (BusError, NatsError, TimeoutError, OSError)
"""What waiting can cure: a bus that is away, full, or not yet applied; a record that others change."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Trouble:
    """Logs the first failure of a row and the success that ends it."""

    def __init__(self) -> None:
        self._since: float | None = None

    def begins(self, error: BaseException) -> None:
        """Note a failure."""
        if self._since is None:
            self._since = monotonic()
            log.warning(
                "link.bus_unavailable",
                error=f"{type(error).__name__}: {error}",
                consequence="workloads stay queued and are handed over when the bus is back",
            )

    def ends(self) -> None:
        """Note a success."""
        if self._since is not None:
            log.info("link.bus_available", after_seconds=round(monotonic() - self._since, 1))
            self._since = None


class Persistence:
    """
    Runs operations on the workload store until they succeed; cancel to give up.

    :param connected: returns the store, waiting while there is no connection
    :param concurrency: operations at the same time
    """

    def __init__(
        self, connected: Callable[[], Awaitable[WorkloadStore]], trouble: Trouble, concurrency: int
    ) -> None:
        self._connected = connected
        self._trouble = trouble
        self._places = asyncio.Semaphore(concurrency)

    async def __call__(self, operation: Callable[[WorkloadStore], Awaitable[T]]) -> T:
        """Run one operation, which may be repeated; other errors than the bus's are raised."""
        while True:
            store = await self._connected()
            try:
                async with self._places:
                    result = await operation(store)
            except TROUBLE as exc:
                self._trouble.begins(exc)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._trouble.ends()
                return result
