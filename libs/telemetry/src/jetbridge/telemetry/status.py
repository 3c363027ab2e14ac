"""
What a process says of itself to those who watch it, where its own work is not HTTP.

``/metrics`` and ``/healthz`` in a thread, if there is a port, and the same metrics by OTLP, if the
environment asks for that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client.exposition import make_wsgi_app

from jetbridge.telemetry.alive import STUCK_SECONDS, touch_pulse
from jetbridge.telemetry.metrics import Metrics
from jetbridge.telemetry.otlp_metrics import pushing

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PULSE_SECONDS = 1.0

_TEXT = [("Content-Type", "text/plain; charset=utf-8")]


class StatusPortError(Exception):
    """The port cannot be listened on; the text says why."""


class Pulse:
    """Shows that an event loop turns."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    async def run(self) -> NoReturn:
        """Beat each second, until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(PULSE_SECONDS)

    def beat(self) -> None:
        """Note that the loop turned."""
        self._last = time.monotonic()
        touch_pulse()

    def is_well(self) -> bool:
        """Say whether the loop turned of late. May be called from any thread."""
        return time.monotonic() - self._last < STUCK_SECONDS


@contextmanager
def watched(metrics: Metrics, port: int, is_well: Callable[[], bool]) -> Iterator[None]:
    """
    Serve status on ``port`` and push metrics while the block runs; a port of 0 is none.

    Raises :class:`StatusPortError` and :class:`~jetbridge.telemetry.exporters.ExporterConfigurationError`.
    """
    with ExitStack() as stack:
        stack.enter_context(pushing(metrics.service.replace("_", "-"), metrics.registry.collect))
        if port:
            try:
                stack.enter_context(status_server(port, metrics, is_well))
            except OSError as error:
                reason = f"port {port} for /metrics cannot be used: {error.strerror}"
                raise StatusPortError(reason) from error
        yield


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # seconds for a request to arrive: nobody holds a thread by sending slowly

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing; probes come every few seconds."""


@contextmanager
def status_server(port: int, metrics: Metrics, is_well: Callable[[], bool]) -> Iterator[int]:
    """
    Serve on ``port`` of all addresses, 0 for a free one, until the block ends; yields the port.

    ``/healthz`` answers 200 or, when ``is_well`` says no, 503; it is asked in a thread. ``/metrics`` is for
    Prometheus; every other path is 404. Raises ``OSError`` when the port is taken.
    """
    show_metrics = make_wsgi_app(metrics.registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            body: Iterable[bytes] = show_metrics(environ, start_response)
            return body
        if path != "/healthz":
            start_response("404 Not Found", _TEXT)
            return [b"there are /metrics and /healthz\n"]
        well = is_well()
        start_response("200 OK" if well else "503 Service Unavailable", _TEXT)
        return [b"well\n" if well else b"not well\n"]

    with serving(app, "", port) as served_at:
        yield served_at


@contextmanager
def serving(app: WSGIApplication, host: str, port: int) -> Iterator[int]:
    """
    Serve a WSGI application in a thread until the block ends; yields the port.

    Raises ``OSError`` when the address cannot be taken.
    """
    with make_server(host, port, app, _Server, _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="status", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
