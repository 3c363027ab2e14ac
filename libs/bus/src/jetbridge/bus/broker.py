"""The bus with a FastStream broker on the same connection, for those who subscribe with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from faststream.nats import NatsBroker
from nats.aio.client import Client

from jetbridge.bus.connection import Bus, jetstream, linked
from jetbridge.bus.settings import BusSettings


@dataclass(frozen=True)
class BrokerBus(Bus):
    """An open connection that subscribers can join by ``broker``."""

    broker: NatsBroker


@asynccontextmanager
async def open_broker(settings: BusSettings, name: str) -> AsyncIterator[BrokerBus]:
    """
    Connect as :func:`jetbridge.bus.connection.open_bus` does; what was subscribed ends with the block.

    Raises ``BusUnavailableError`` when no server answers the first time.
    """
    brokers: list[NatsBroker] = []

    async def connect(servers: list[str], options: dict[str, Any]) -> Client:
        brokers.append(NatsBroker(servers, logger=None, **options))
        return await brokers[0].connect()

    async with linked(settings, name, connect, lambda _: brokers[0].stop()) as client:
        yield BrokerBus(client, jetstream(client, settings), brokers[0])
