"""The records of registered agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import ConflictError, NameTakenError
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.contracts.records import AgentRecord
from jetbridge.contracts.subjects import AGENTS_BUCKET

MayReplace = Callable[[AgentRecord], Awaitable[bool]]


class AgentStore:
    """Durable facts about agents, by name. The newest registration of a name wins, if it may."""

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

    async def register(self, record: AgentRecord, may_replace: MayReplace) -> int:
        """
        Write the record, replacing an earlier process of the same name.

        Raises :class:`NameTakenError` when ``may_replace(earlier)`` says no. Of two that race, the later one
        meets the earlier one's record.
        """
        while True:
            before = await self.bucket.get(record.name)
            try:
                if before is None:
                    return await self.bucket.create(record.name, record)
                if not await may_replace(before.record):
                    raise NameTakenError(f"agent {record.name!r} belongs to token {before.record.token_id}")
                return await self.bucket.update(record.name, record, before.revision)
            except ConflictError:
                continue

    async def note_draining(self, name: str, instance: str) -> None:
        """Note that this process takes no more work; raises :class:`ConflictError` when it was replaced."""
        entry = await self.get(name)
        if entry and entry.record.instance == instance and not entry.record.draining:
            record = msgspec.structs.replace(entry.record, draining=True)
            await self.bucket.update(name, record, entry.revision)
