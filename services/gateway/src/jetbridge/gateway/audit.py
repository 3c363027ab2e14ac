"""
Counts what crosses the boundary and writes it down once a second. Counting costs a look into a dictionary.

While NATS is away the counts grow and not their number: a row is a class, an outcome, an agent and an
operation. Rows beyond a limit are counted under one name, so hostile names of agents cannot fill the memory.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator

import structlog

from jetbridge.bus.audit_log import ChainWriter
from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusError
from jetbridge.contracts.audit import AUDIT_SECONDS, ROUTINE_AUDIT_SECONDS, BoundaryCount
from jetbridge.contracts.boundary import CLASSES, DataClass, Handling
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.screening import Outcome

log = structlog.get_logger(__name__)

_MAX_ROWS = 10_000
_ROWS_A_RECORD = 1_000
"""About 250 bytes each; NATS takes messages of up to 1 MiB."""

_OTHERS = "(others)"
_END_SECONDS = 5.0

_Row = tuple[DataClass, Outcome, str, str, str]


class Audit:
    """One gateway's counts and its chain."""

    def __init__(self, bus: Bus, metrics: GatewayMetrics) -> None:
        self._chain = ChainWriter(bus, f"gateway-{uuid.uuid4().hex}")
        self._metrics = metrics
        self._rows: dict[_Row, list[int]] = {}
        self._urgent = False
        self._routine_due = time.monotonic() + ROUTINE_AUDIT_SECONDS

    def note(  # noqa: PLR0913 - a row has this many columns
        self, data: DataClass, outcome: Outcome, *, agent: str, site: str, operation: str, size: int = 0
    ) -> None:
        """Count one crossing of ``size`` bytes."""
        row = (data, outcome, agent, site, operation)
        counted = self._rows.get(row)
        if counted is None:
            if len(self._rows) >= _MAX_ROWS:
                row = (data, outcome, _OTHERS, "", operation)
            counted = self._rows.setdefault(row, [0, 0])
        counted[0] += 1
        counted[1] += size
        if outcome is not Outcome.CROSSED or CLASSES[data].closed is not Handling.ALWAYS:
            self._urgent = True
            self._metrics.boundary.labels(data.value, outcome.value).inc()
            self._metrics.boundary_bytes.labels(data.value, outcome.value).inc(size)

    async def run(self) -> None:
        """Write what was counted, until cancelled."""
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            if self._urgent or time.monotonic() >= self._routine_due:
                self._seal_rows()
            await self._flush()

    async def close(self) -> None:
        """Write what is left and end the chain."""
        self._seal_rows(closed=True)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._chain.flush()
        except (BusError, TimeoutError):
            log.error("audit.lost", records=self._chain.waiting)  # noqa: TRY400 - the reason is known

    async def _flush(self) -> None:
        try:
            await self._chain.flush()
        except BusError as exc:
            log.warning("audit.waits", records=self._chain.waiting, error=str(exc))

    def _seal_rows(self, *, closed: bool = False) -> None:
        if self._chain.waiting and not closed:
            return  # NATS is away: one record for all of it, when it is back
        rows, self._rows, self._urgent = self._rows, {}, False
        self._routine_due = time.monotonic() + ROUTINE_AUDIT_SECONDS
        parts = list(_parts(rows))
        for part in parts[:-1]:
            self._chain.add(part)
        if closed or parts:
            self._chain.add(parts[-1] if parts else (), closed=closed)


def _parts(rows: dict[_Row, list[int]]) -> Iterator[list[BoundaryCount]]:
    counts = [
        BoundaryCount(
            data=data.value,
            outcome=outcome.value,
            agent=agent,
            site=site,
            operation=operation,
            count=count,
            bytes=size,
        )
        for (data, outcome, agent, site, operation), (count, size) in rows.items()
    ]
    for start in range(0, len(counts), _ROWS_A_RECORD):
        yield counts[start : start + _ROWS_A_RECORD]
