"""Runs a gateway: socket, TLS, uvicorn, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from jetbridge.bus.settings import BusSettings
from jetbridge.gateway.app import build_app
from jetbridge.gateway.gateway import Gateway, open_gateway
from jetbridge.gateway.http_protocol import bounded
from jetbridge.gateway.scrape import reader
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.telemetry.otlp_metrics import pushing

log = structlog.get_logger(__name__)

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
"""Longer than the longest poll and the usual 60 s of proxies, so that the client's side closes first."""


class ListenError(OSError):
    """The address or the TLS files cannot be used; the text says which and why."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal it has just handled."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: GatewaySettings, bus_settings: BusSettings) -> int:
    """
    Serve until SIGTERM or SIGINT, then drain; returns the exit code.

    Raises :class:`ListenError`, and what ``open_gateway`` raises.
    """
    stop, failed = asyncio.Event(), asyncio.Event()

    def fail() -> None:
        failed.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listener = bind(settings)
    async with open_gateway(settings, bus_settings, fail) as gateway:
        with pushing("gateway", reader(gateway)):
            await run(gateway, listener, stop)
    return 1 if failed.is_set() else 0


async def run(gateway: Gateway, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve on ``listener`` until ``stop`` is set, then drain."""
    settings = gateway.settings
    server = _Server(_config(build_app(gateway), gateway))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    host, port = listener.getsockname()[:2]
    log.info("gateway.listening", host=host, port=port, tls=settings.tls_cert_file is not None)
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    log.info("gateway.draining", limit_seconds=settings.drain_seconds)
    gateway.drain()
    if not serving.done():
        await asyncio.sleep(settings.drain_notice_seconds)  # for load balancers to see it on /readyz
    server.should_exit = True
    await serving
    log.info("gateway.stopped")


def _config(app: ASGIApp, gateway: Gateway) -> uvicorn.Config:
    settings, metrics = gateway.settings, gateway.metrics
    config = uvicorn.Config(
        app,
        http=bounded(
            settings.max_header_bytes,
            settings.read_seconds,
            lambda kind: metrics.refused.labels(kind.slug).inc(),
        ),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # agents could claim any address
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.drain_seconds),
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        ssl_ca_certs=settings.tls_client_ca_file,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca_file else ssl.CERT_NONE,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as exc:
        raise ListenError(f"the TLS files cannot be used: {_reason(exc, settings.tls_cert_file)}") from exc
    return config


def _reason(error: OSError, file: Path | None) -> str:
    return f"{error.filename or file}: {error.strerror or error}"


def bind(settings: GatewaySettings) -> socket.socket:
    """Return a bound socket; raises :class:`ListenError`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server(
            (settings.host, settings.port), family=family, backlog=_BACKLOG, reuse_port=settings.reuse_port
        )
    except OSError as exc:
        raise ListenError(
            f"cannot listen on {settings.host} port {settings.port}: {exc.strerror or exc}"
        ) from exc
