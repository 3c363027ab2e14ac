"""
Opening the bus: one NATS connection. Whoever subscribes with FastStream opens it by ``jetbridge.bus.broker``.

FastStream is not imported here: most processes subscribe by themselves or not at all, and it would be half
of the start of each command, and some megabytes of each service.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import nats
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoServersError
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from jetbridge.bus.errors import BusUnavailableError, TopologyError
from jetbridge.bus.settings import BusSettings
from jetbridge.telemetry.redaction import redact_text

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Bus:
    """An open connection, and JetStream over it."""

    client: Client
    js: JetStreamContext

    async def bucket(self, name: str) -> KeyValue:
        """Bind to a KV bucket; raises :class:`TopologyError` when nobody applied the topology."""
        from nats.js.errors import BucketNotFoundError, ServiceUnavailableError  # noqa: PLC0415

        try:
            return await self.js.key_value(name)
        except BucketNotFoundError as exc:
            msg = f"NATS has no bucket {name!r}; run 'jetbridge bus apply' once before the services"
            raise TopologyError(msg) from exc
        except (ServiceUnavailableError, TimeoutError) as exc:
            msg = "NATS answers but JetStream does not; is the server started with JetStream on?"
            raise BusUnavailableError(msg) from exc


@asynccontextmanager
async def open_bus(settings: BusSettings, name: str) -> AsyncIterator[Bus]:
    """
    Connect to NATS as ``name`` and close when done; reconnects for ever by itself in between.

    Raises :class:`BusUnavailableError` when no server answers the first time.
    """

    async def connect(servers: list[str], options: dict[str, Any]) -> Client:
        return await nats.connect(servers, **options)

    async with linked(settings, name, connect, lambda client: client.drain()) as client:
        yield Bus(client, jetstream(client, settings))


def jetstream(client: Client, settings: BusSettings) -> JetStreamContext:
    """Return JetStream over an open connection."""
    return client.jetstream(timeout=settings.request_timeout_seconds)


Connect = Callable[[list[str], dict[str, Any]], Awaitable[Client]]
Drain = Callable[[Client], Awaitable[None]]


@asynccontextmanager
async def linked(settings: BusSettings, name: str, connect: Connect, drain: Drain) -> AsyncIterator[Client]:
    """
    Yield what ``connect(servers, options)`` connects, and log what becomes of the link meanwhile.

    ``drain(client)`` delivers what is on its way at the end.
    """
    watch = _LinkLog()
    connecting = connect(settings.url.split(","), _options(settings, name, watch))
    try:
        # nats-py applies "reconnect for ever" to the first attempt too; whoever starts us decides that.
        client = await asyncio.wait_for(connecting, settings.connect_timeout_seconds)
    except (NoServersError, TimeoutError, OSError) as exc:
        msg = f"no NATS server answers at {redact_text(settings.url)}; is it running and reachable?"
        raise BusUnavailableError(msg) from exc
    watch.quiet = False
    try:
        yield client
    finally:
        watch.quiet = True
        await _close(client, drain)


async def _close(client: Client, drain: Drain) -> None:
    """Deliver what is on its way and close. With the server away there is nobody to deliver to."""
    try:
        await drain(client)
    except NatsError:
        with suppress(OSError):  # nats-py tries to send what is buffered, over the link that is not there
            await client.close()


class _LinkLog:
    """
    Logs each change of the link once.

    Quiet before the first connection, whose failure is raised, and when we close the link ourselves.
    """

    def __init__(self) -> None:
        self.quiet = True
        self._last_error = ""

    async def error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if not self.quiet and text != self._last_error:
            log.warning("bus.error", error=text)
        self._last_error = text

    async def disconnected(self) -> None:
        if not self.quiet:
            log.warning("bus.disconnected")

    async def reconnected(self) -> None:
        self._last_error = ""
        log.info("bus.reconnected")


def _options(settings: BusSettings, name: str, watch: _LinkLog) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": name,
        "connect_timeout": settings.connect_timeout_seconds,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.5,
        "error_cb": watch.error,
        "disconnected_cb": watch.disconnected,
        "reconnected_cb": watch.reconnected,
    }
    if settings.credentials_file:
        options["user_credentials"] = str(settings.credentials_file)
    if settings.ca_file:
        options["tls"] = ssl.create_default_context(cafile=settings.ca_file)
    return options
