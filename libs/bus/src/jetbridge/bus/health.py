"""The health of agents' processes. Written by the plane sentinel and gateways, read by all."""

from __future__ import annotations

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import ConflictError
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.contracts.records import Health, HealthRecord
from jetbridge.contracts.subjects import HEALTH_BUCKET

_CAS_ATTEMPTS = 5
"""A sentinel may write its verdict at the same moment, once."""


def health_key(agent: str, instance: str) -> str:
    """Return the key of one process of an agent."""
    return f"{agent}/{instance}"


class HealthStore:
    """Health records by agent and instance. Every change is a compare-and-set: of two sentinels one wins."""

    def __init__(self, bucket: RecordBucket[HealthRecord]) -> None:
        """Use :meth:`open` instead."""
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> HealthStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(HEALTH_BUCKET)
        return cls(RecordBucket(bus.js, kv, HEALTH_BUCKET, HealthRecord))

    async def change(self, before: Versioned[HealthRecord] | None, after: HealthRecord) -> int:
        """
        Write ``after`` over ``before`` and return the revision.

        Raises :class:`ConflictError` when another sentinel was faster: look again.
        """
        key = health_key(after.agent, after.instance)
        if before is None:
            return await self.bucket.create(key, after)
        return await self.bucket.update(key, after, before.revision)

    async def attest(self, record: HealthRecord) -> tuple[HealthRecord | None, int] | None:
        """
        Write what is known for certain over whatever was inferred; return what was there, and the revision.

        None when the end of the process was known already: what came first stays.
        """
        for _ in range(_CAS_ATTEMPTS):
            before = await self.bucket.get(health_key(record.agent, record.instance))
            if before and has_ended(before.record):
                return None
            try:
                return before.record if before else None, await self.change(before, record)
            except ConflictError:
                continue
        raise ConflictError(f"the health of agent {record.agent} keeps changing under the statement")


def has_ended(record: HealthRecord | None) -> bool:
    """Say whether the process is known, not only inferred, to have ended."""
    return record is not None and record.attested


def is_lost(record: HealthRecord | None) -> bool:
    """Say whether the process is known to run nothing any more."""
    return record is not None and record.health in (Health.LOST, Health.GONE)
