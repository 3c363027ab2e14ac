"""Looks at the bus from outside, each over a connection of its own, from tests that are not asynchronous."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from jetbridge.bus.connection import open_bus
from jetbridge.bus.health import HealthStore, health_key
from jetbridge.bus.policies import PolicyStore
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.policies import FailoverPolicy, PolicyRecord
from jetbridge.contracts.records import HealthRecord, WorkloadRecord


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
        return list((await (await WorkloadStore.open(bus)).bucket.all()).values())


def health_of(url: str, agent: str, instance: str) -> HealthRecord | None:
    """Return the health record of one process of an agent."""
    return asyncio.run(_health_of(url, agent, instance))


async def _health_of(url: str, agent: str, instance: str) -> HealthRecord | None:
    async with open_bus(BusSettings(url=url), "jetbridge-chaos") as bus:
        entry = await (await HealthStore.open(bus)).bucket.get(health_key(agent, instance))
        return entry.record if entry else None
