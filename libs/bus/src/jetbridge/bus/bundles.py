"""
The leases of Dag bundles: who works on which, one at a time.

NATS' own clock ends a lease (the bucket's ``max_age``), so no two machines' clocks are compared and no
sweeper is needed: a holder that does not write its record again loses it, and whoever asks next gets it.
"""

from __future__ import annotations

import msgspec

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import ConflictError
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.contracts.dag_processing import BundleRecord, bundle_key
from jetbridge.contracts.subjects import BUNDLES_BUCKET

_CAS_ATTEMPTS = 5
"""Races on one record are between a handful of processes; losing five in a row means something is wrong."""


def epoch_of(lease: Versioned[BundleRecord]) -> int:
    """Return the epoch of a lease; its first write could not know its own revision."""
    return lease.record.epoch or lease.revision


class BundleStore:
    """Takes, keeps and gives back bundles."""

    def __init__(self, bucket: RecordBucket[BundleRecord]) -> None:
        """Use :meth:`open` instead."""
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> BundleStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(BUNDLES_BUCKET)
        return cls(RecordBucket(bus.js, kv, BUNDLES_BUCKET, BundleRecord))

    async def get(self, bundle: str) -> Versioned[BundleRecord] | None:
        """Return the bundle's lease, unless it has ended."""
        return await self.bucket.get(bundle_key(bundle))

    async def claim(self, bundle: str, agent: str, instance: str) -> Versioned[BundleRecord]:
        """
        Take the bundle or keep it, and return the lease that there is now: the agent's, or another's.

        A new process of the same agent takes over at once, under a new epoch: its predecessor's
        registration has ended, and with it the right to say anything.
        """
        for _ in range(_CAS_ATTEMPTS):
            current = await self.get(bundle)
            if current is not None and current.record.agent != agent:
                return current
            try:
                return await self._write(bundle, agent, instance, current)
            except ConflictError:
                continue
        msg = f"bundle {bundle!r}: the lease keeps changing under the claim"
        raise ConflictError(msg)

    async def _write(
        self, bundle: str, agent: str, instance: str, current: Versioned[BundleRecord] | None
    ) -> Versioned[BundleRecord]:
        fresh = BundleRecord(bundle=bundle, agent=agent, instance=instance)
        if current is None:
            return Versioned(fresh, await self.bucket.create(bundle_key(bundle), fresh))
        same = current.record.instance == instance
        record = msgspec.structs.replace(fresh, epoch=epoch_of(current)) if same else fresh
        return Versioned(record, await self.bucket.update(bundle_key(bundle), record, current.revision))

    async def release(self, bundle: str, agent: str, instance: str, epoch: int) -> None:
        """Give the bundle back, if it is still held under ``epoch``."""
        current = await self.get(bundle)
        if current is None or not held_by(current, agent, instance, epoch):
            return
        try:
            await self.bucket.delete(bundle_key(bundle), current.revision)
        except ConflictError:
            return  # it changed hands meanwhile, or was renewed by a claim that overtook this


def held_by(lease: Versioned[BundleRecord], agent: str, instance: str, epoch: int) -> bool:
    """Say whether this process of the agent holds the lease under exactly this epoch."""
    record = lease.record
    return (record.agent, record.instance, epoch_of(lease)) == (agent, instance, epoch)
