"""What the bus says of agents, and what lets them in, from outside with the bus library."""

from __future__ import annotations

import asyncio

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.connection import open_bus
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tokens import DEFAULT_LIFE, TokenStore


def is_registered(nats_url: str, agent: str) -> bool:
    """Whether an agent of this name ever registered."""
    return asyncio.run(_is_registered(nats_url, agent))


async def _is_registered(nats_url: str, agent: str) -> bool:
    # A get by name; listing all would leave a consumer behind for each look, and those are limited.
    async with open_bus(BusSettings(url=nats_url), "jetbridge-devstack") as bus:
        store = await AgentStore.open(bus)
        return await store.get(agent) is not None


def new_token(nats_url: str, name: str) -> str:
    """Make the same token as ``jetbridge token create --name``."""
    return asyncio.run(_new_token(nats_url, name))


async def _new_token(nats_url: str, name: str) -> str:
    async with open_bus(BusSettings(url=nats_url), "jetbridge-devstack") as bus:
        tokens = await TokenStore.open(bus)
        token, _ = await tokens.create(name, DEFAULT_LIFE)
        return str(token)
