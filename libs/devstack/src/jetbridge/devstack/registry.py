"""What the bus says of agents, asked from outside with the bus library."""

from __future__ import annotations

import asyncio

from nats.js.errors import NoKeysError

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.connection import open_bus
from jetbridge.bus.settings import BusSettings


def agents(nats_url: str) -> set[str]:
    """Return the names of the agents that ever registered."""
    return asyncio.run(_agents(nats_url))


async def _agents(nats_url: str) -> set[str]:
    async with open_bus(BusSettings(url=nats_url), "jetbridge-devstack") as bus:
        store = await AgentStore.open(bus)
        try:
            return set(await store.bucket.kv.keys())
        except NoKeysError:
            return set()
