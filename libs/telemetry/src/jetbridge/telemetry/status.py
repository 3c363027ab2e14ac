"""``/metrics`` and ``/healthz`` for processes whose own work is not HTTP, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client.exposition import make_wsgi_app

from jetbridge.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_TEXT = [("Content-Type", "text/plain; charset=utf-8")]


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
