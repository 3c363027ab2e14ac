"""Runs a gateway: socket, TLS, uvicorn, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jetbridge.bus.settings import BusSettings
from jetbridge.gateway.app import build_app
from jetbridge.gateway.gateway import Gateway, open_gateway
from jetbridge.gateway.heap import settled_heap
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
    status = bind(settings, settings.status_port) if settings.status_port else None
    async with open_gateway(settings, bus_settings, fail) as gateway, settled_heap():
        with pushing("gateway", reader(gateway)):
            await run(gateway, listener, stop, status)
    return 1 if failed.is_set() else 0


async def run(
    gateway: Gateway, listener: socket.socket, stop: asyncio.Event, status: socket.socket | None = None
) -> None:
    """Serve on ``listener``, and answer probes on ``status``, until ``stop`` is set; then drain."""
    app = build_app(gateway)
    server = _Server(_config(app, gateway))
    async with _answering(app, status):
        await _serve_until(stop, server, listener, gateway)
    log.info("gateway.stopped")


async def _serve_until(
    stop: asyncio.Event, server: _Server, listener: socket.socket, gateway: Gateway
) -> None:
    settings = gateway.settings
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


_STATUS_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


@asynccontextmanager
async def _answering(app: ASGIApp, listener: socket.socket | None) -> AsyncIterator[None]:
    """Answer what the plane's own orchestrator and Prometheus ask, and nothing else, until the block ends."""
    if listener is None:
        yield
        return
    server = _Server(
        uvicorn.Config(
            _only(_STATUS_PATHS, app), ws="none", lifespan="off", log_config=None, access_log=False
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="status server")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _only(paths: frozenset[str], app: ASGIApp) -> ASGIApp:
    async def filtered(scope: Scope, receive: Receive, send: Send) -> None:
        answer = app if scope["path"] in paths else Response(status_code=404)
        await answer(scope, receive, send)

    return filtered


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


def bind(settings: GatewaySettings, port: int | None = None) -> socket.socket:
    """Return a socket bound to the gateway's port, or another of its host; raises :class:`ListenError`."""
    port = settings.port if port is None else port
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (settings.host, port), family=family, backlog=_BACKLOG, reuse_port=settings.reuse_port
        )
    except OSError as exc:
        raise ListenError(f"cannot listen on {settings.host} port {port}: {exc.strerror or exc}") from exc
    # Connections inherit it. asyncio's own loop does not see that these are TCP, and an answer written in two
    # parts then waits 40 ms for the other side's acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
