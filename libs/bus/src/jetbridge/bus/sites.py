"""The latest report of each site's sentinel. Records that are not written again disappear."""

from __future__ import annotations

from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.sites import SiteRecord
from jetbridge.contracts.subjects import SITES_BUCKET


async def open_sites(bus: Bus) -> RecordBucket[SiteRecord]:
    """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
    return RecordBucket(bus.js, await bus.bucket(SITES_BUCKET), SITES_BUCKET, SiteRecord)
