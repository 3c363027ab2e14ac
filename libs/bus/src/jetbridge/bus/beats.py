"""Heartbeats that Redis did not take; see ``jetbridge.contracts.presence``."""

from __future__ import annotations

from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.presence import BEATS_BUCKET, Beat


async def open_beats(bus: Bus) -> RecordBucket[Beat]:
    """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
    return RecordBucket(bus.js, await bus.bucket(BEATS_BUCKET), BEATS_BUCKET, Beat)
