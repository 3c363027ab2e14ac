"""
Metrics by OTLP from the registry that ``/metrics`` shows: one set of names and values, two ways out.

The SDK's own instruments would be a second registry. So the exporter, which is the SDK's, is given what the
registry holds, in a thread, at OpenTelemetry's standard interval, and once more at the end.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from prometheus_client import Metric

from jetbridge.telemetry.exporters import exporter_class, exporter_names

log = structlog.get_logger(__name__)

Read = Callable[[], Iterable[Metric]]

DEFAULT_INTERVAL_MS = 60_000.0
"""OpenTelemetry's; ``OTEL_METRIC_EXPORT_INTERVAL`` changes it."""

LAST_EXPORT_SECONDS = 5.0
"""A collector that does not answer must not keep a draining service."""


@contextmanager
def pushing(service: str, read: Read) -> Iterator[None]:
    """
    Push what ``read`` returns while the block runs, if the environment asks for it; else cost nothing.

    Asked for by ``OTEL_METRICS_EXPORTER`` or an endpoint, see ``exporters``. ``read`` is called in a thread.
    Raises :class:`~jetbridge.telemetry.exporters.ExporterConfigurationError`.
    """
    exporters = [exporter_class("metrics", name)() for name in exporter_names("metrics")]
    if not exporters:
        yield
        return
    from jetbridge.telemetry.otlp_data import metrics_data, resource  # noqa: PLC0415 - the SDK, 100 ms

    origin = resource(service, f"{socket.gethostname()}:{os.getpid()}")

    def push() -> None:
        try:
            data = metrics_data(origin, read())
            for exporter in exporters:
                exporter.export(data)  # says in the log what went wrong, and raises nothing of the network's
        except Exception:
            log.exception("metrics were not exported")

    with _repeating(push, _interval_seconds()):
        yield


@contextmanager
def _repeating(push: Callable[[], None], interval_seconds: float) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(interval_seconds):
            push()
        push()

    thread = threading.Thread(target=run, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST_EXPORT_SECONDS)


def _interval_seconds() -> float:
    text: Any = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or DEFAULT_INTERVAL_MS
    try:
        return max(0.1, float(text) / 1000)
    except ValueError:
        log.warning("OTEL_METRIC_EXPORT_INTERVAL is no number of milliseconds", value=text)
        return DEFAULT_INTERVAL_MS / 1000
