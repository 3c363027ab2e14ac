"""Asking the bus about one agent, with a limit that a person who waits for a page can bear."""

from __future__ import annotations

import msgspec
from nats.errors import Error as NatsError

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.records import AgentRecord

LIMIT_SECONDS = 1.0
"""For the whole look-up."""

_TROUBLE = (BusError, NatsError, OSError, TimeoutError, msgspec.DecodeError)


async def look_up(name: str, settings: BusSettings | None = None) -> AgentRecord | None:
    """Return the agent's record; None when there is none or the bus does not say in time."""
    limits = {"connect_timeout_seconds": LIMIT_SECONDS / 2, "request_timeout_seconds": LIMIT_SECONDS / 2}
    try:
        async with open_bus(
            (settings or BusSettings()).model_copy(update=limits), "jetbridge-log-reader"
        ) as bus:
            found = await (await AgentStore.open(bus)).get(name)
    except _TROUBLE:
        return None
    return found.record if found else None
