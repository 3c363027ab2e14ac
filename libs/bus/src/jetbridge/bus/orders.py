"""What operators want of agents: written by ``jetbridge agents``, obeyed by gateways, level-triggered."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import ConflictError
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.contracts.records import DrainOrder, OrderRecord
from jetbridge.contracts.subjects import ORDERS_BUCKET

_CAS_ATTEMPTS = 5
"""Two people at one agent are rare; losing five races in a row means something is wrong."""


class OrderStore:
    """Orders by agent's name. Every command may be repeated: what is so already is not written again."""

    def __init__(self, bucket: RecordBucket[OrderRecord]) -> None:
        """Use :meth:`open` instead."""
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> OrderStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(ORDERS_BUCKET)
        return cls(RecordBucket(bus.js, kv, ORDERS_BUCKET, OrderRecord))

    async def cordon(self, agent: str, reason: str = "") -> bool:
        """Have the agent get no new work; say whether that is new. A drain that is ordered stays."""
        for _ in range(_CAS_ATTEMPTS):
            if await self.bucket.get(agent) is not None:
                return False
            try:
                await self.bucket.create(agent, _cordoned(agent, reason))
            except ConflictError:
                continue
            return True
        raise _keeps_changing(agent)

    async def drain(self, agent: str, instance: str, hand_over_at: datetime, reason: str = "") -> OrderRecord:
        """
        Have one process of the agent finish, hand over what is left at ``hand_over_at``, and end.

        Of two deadlines for the same process the earlier one holds, so that a repeated command does not
        put the end off.
        """
        for _ in range(_CAS_ATTEMPTS):
            before = await self.bucket.get(agent)
            record = _draining(before, agent, DrainOrder(instance=instance, hand_over_at=hand_over_at))
            record = msgspec.structs.replace(record, reason=reason or record.reason)
            try:
                if before is None:
                    await self.bucket.create(agent, record)
                elif before.record != record:
                    await self.bucket.update(agent, record, before.revision)
            except ConflictError:
                continue
            return record
        raise _keeps_changing(agent)

    async def uncordon(self, agent: str) -> bool:
        """Withdraw every order; say whether there was one."""
        for _ in range(_CAS_ATTEMPTS):
            before = await self.bucket.get(agent)
            if before is None:
                return False
            try:
                await self.bucket.delete(agent, before.revision)
            except ConflictError:
                continue
            return True
        raise _keeps_changing(agent)


def is_draining(order: OrderRecord | None, instance: str) -> bool:
    """Say whether exactly this process is to end."""
    return order is not None and order.drain is not None and order.drain.instance == instance


def _cordoned(agent: str, reason: str) -> OrderRecord:
    return OrderRecord(agent=agent, since=datetime.now(UTC), reason=reason)


def _draining(before: Versioned[OrderRecord] | None, agent: str, drain: DrainOrder) -> OrderRecord:
    record = before.record if before else _cordoned(agent, "")
    known = record.drain
    if known and known.instance == drain.instance and known.hand_over_at <= drain.hand_over_at:
        return record
    return msgspec.structs.replace(record, drain=drain)


def _keeps_changing(agent: str) -> ConflictError:
    return ConflictError(f"the orders for agent {agent} keep changing under the command")
