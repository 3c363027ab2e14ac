"""The queues that have work and nobody to take it. Routers write this; it is for whoever wants to know."""

from __future__ import annotations

from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.records import LaneRecord
from jetbridge.contracts.subjects import LANES_BUCKET, lane_of


async def open_lanes(bus: Bus) -> RecordBucket[LaneRecord]:
    """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
    return RecordBucket(bus.js, await bus.bucket(LANES_BUCKET), LANES_BUCKET, LaneRecord)


def lane_key(queue: str) -> str:
    """Return the key of a queue's record: its lane."""
    return lane_of(queue)
