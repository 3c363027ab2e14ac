"""Looks at the bus from outside, each over a connection of its own, from tests that are not asynchronous."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from jetbridge.bus.connection import open_bus
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.policies import PolicyStore
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.policies import FailoverPolicy, PolicyRecord
from jetbridge.contracts.records import WorkloadRecord

_READ_SECONDS = 15.0


def workloads(url: str) -> list[WorkloadRecord]:
    """Return the record of every workload there is."""
    return asyncio.run(_workloads(url))


def set_policy(url: str, scope: str, policy: FailoverPolicy) -> None:
    """Make the failover policy of a scope exactly this."""
    asyncio.run(_set_policy(url, scope, policy))


async def _set_policy(url: str, scope: str, policy: FailoverPolicy) -> None:
    async with open_bus(BusSettings(url=url), "jetbridge-chaos") as bus:
        store = await PolicyStore.open(bus)
        record = PolicyRecord(scope=scope, failover=policy, changed_at=datetime.now(UTC), changed_by="chaos")
        await store.change(await store.get(scope), record)


async def _workloads(url: str) -> list[WorkloadRecord]:
    async with open_bus(BusSettings(url=url), "jetbridge-chaos") as bus:
        mirror = BucketMirror(bus, (await WorkloadStore.open(bus)).bucket)
        reading = asyncio.create_task(mirror.run())
        try:
            await asyncio.wait_for(mirror.ready.wait(), _READ_SECONDS)
            return [entry.record for _, entry in mirror.items()]
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
