"""The thread that speaks to the gateway, with an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from importlib.metadata import version

import structlog

from jetbridge.agent.errors import AgentError
from jetbridge.agent.gateway_client import tls_of
from jetbridge.agent.link import Link
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.contracts.api import RegisterRequest
from jetbridge.triggerer.calls import TriggererClient, TriggererSession
from jetbridge.triggerer.conversation import Conversation
from jetbridge.triggerer.exchange import Exchange
from jetbridge.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)

_JOIN_SECONDS = 5.0
"""For closing connections; the thread is a daemon, so nothing waits for it longer."""


class Network:
    """Start it after the runner was forked: a process must not fork while it has threads."""

    def __init__(self, settings: TriggererSettings, exchange: Exchange, instance: str) -> None:
        self._settings = settings
        self._exchange = exchange
        self._instance = instance
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._limit_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="jetbridge-network", daemon=True)

    def start(self) -> None:
        """Register and begin to talk."""
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Deliver what is left, say goodbye, and end; each may take ``seconds``."""
        if self._loop is not None and self._thread.is_alive():
            self._limit_seconds = seconds
            with suppress(RuntimeError):  # the loop has just ended by itself
                self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(2 * seconds + _JOIN_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            if not isinstance(error, AgentError):
                log.exception("the network's thread failed")
            self._exchange.stop(error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        settings = self._settings
        tls = tls_of(settings)
        async with TriggererClient(settings.gateway, tls) as client:
            session = TriggererSession(client, Link(), identity(settings, self._instance), settings)
            conversation, tasks = Conversation(session, self._exchange), SideTasks()
            tasks.run("start of conversation", self._converse(session, conversation, tasks))
            failure = asyncio.create_task(tasks.failure())
            over = asyncio.create_task(self._over.wait())
            try:
                await asyncio.wait({failure, over}, return_when=asyncio.FIRST_COMPLETED)
                if failure.done():
                    await failure
                with suppress(TimeoutError, AgentError):
                    await conversation.end(self._limit_seconds)
                # The runner was ended before this thread was told to finish.
                await session.goodbye("drained", self._limit_seconds)
            finally:
                self._exchange.outbox.on_change = _nobody
                for task in (failure, over):
                    task.cancel()
                await tasks.cancel()

    async def _converse(
        self, session: TriggererSession, conversation: Conversation, tasks: SideTasks
    ) -> None:
        await session.register()
        tasks.run_forever("heartbeat", conversation.beat(self._settings.capacity))
        tasks.run_forever("poll", conversation.poll())
        tasks.run_forever("deliver", conversation.deliver())


def identity(settings: TriggererSettings, instance: str) -> RegisterRequest:
    """Return what this process says of itself at its registrations."""
    return RegisterRequest(
        name=settings.name,
        instance=instance,
        role="triggerer",
        queues=settings.queues,
        slots=settings.capacity,
        labels=settings.labels,
        software_version=version("jetbridge-triggerer"),
        site=settings.site,
        log_store=f"{socket.gethostname()}:{settings.data_dir / 'logs'}",
    )


def _nobody() -> None:
    """Be nobody's concern."""
