"""The records of registered agents."""

from __future__ import annotations

from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.contracts.records import AgentRecord
from jetbridge.contracts.subjects import AGENTS_BUCKET


class AgentStore:
    """Durable facts about agents, by name. The newest registration of a name wins."""

    def __init__(self, bucket: RecordBucket[AgentRecord]) -> None:
        """Use :meth:`open` instead."""
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> AgentStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(AGENTS_BUCKET)
        return cls(RecordBucket(bus.js, kv, AGENTS_BUCKET, AgentRecord))

    async def get(self, name: str) -> Versioned[AgentRecord] | None:
        """Return the agent's record."""
        return await self.bucket.get(name)

    async def register(self, record: AgentRecord) -> int:
        """Write the record, replacing an earlier process of the same name."""
        return await self.bucket.put(record.name, record)
