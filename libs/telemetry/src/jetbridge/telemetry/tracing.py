"""
OpenTelemetry tracing from the standard ``OTEL_*`` environment.

With no exporter configured nothing is recorded and the SDK is not even imported, yet a trace context
that arrives is still passed on. Processes that fork: configure tracing *after* the fork, in the child.
The exporter owns a thread and a connection, and neither may cross a fork; a forking parent must also
stay single-threaded. (A span begun before the fork continues in the child through its traceparent.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jetbridge.telemetry.exporters import ExporterConfigurationError, exporter_class, exporter_names

_TRACEPARENT = "traceparent"
_propagator = TraceContextTextMapPropagator()


TracingConfigurationError = ExporterConfigurationError


class StopTracing(Protocol):
    """What :func:`configure_tracing` returns."""

    def __call__(self, timeout_seconds: float = 5.0) -> None:
        """Flush what was recorded and stop the exporter; waits at most ``timeout_seconds``."""


def configure_tracing(service: str) -> StopTracing:
    """
    Set up tracing for this process and return the function that flushes and stops it.

    Exports when ``OTEL_TRACES_EXPORTER`` names an exporter, or when it is unset and
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``…_TRACES_ENDPOINT``) is set; ``OTEL_SDK_DISABLED=true`` and
    ``OTEL_TRACES_EXPORTER=none`` switch it off. The service's name is ``jetbridge-<service>`` unless
    ``OTEL_SERVICE_NAME`` says otherwise. A tracer provider that is already there (Airflow's) is kept.

    The returned function can be called twice. Raises :class:`TracingConfigurationError`.
    """
    names = exporter_names("traces")
    if not names or _has_provider():
        return _nothing_to_stop
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - costs 100 ms; see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    from jetbridge.telemetry.clean import CleanExporter  # noqa: PLC0415

    attributes = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: f"jetbridge-{service}"}
    provider = TracerProvider(resource=Resource.create(attributes))
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(CleanExporter(exporter_class("traces", name)())))
    trace.set_tracer_provider(provider)
    return _stopper(provider.shutdown)


@contextmanager
def traced(service: str) -> Iterator[None]:
    """Have tracing set up while the block runs, see :func:`configure_tracing`."""
    stop = configure_tracing(service)
    try:
        yield
    finally:
        stop()


def preload_tracing() -> None:
    """
    Import what :func:`configure_tracing` will need, if it will; starts no thread and opens no connection.

    For a process that forks others: they find the SDK in memory. Raises :class:`TracingConfigurationError`.
    """
    for name in exporter_names("traces"):
        from jetbridge.telemetry import clean  # noqa: F401, PLC0415 - the SDK comes with it

        exporter_class("traces", name)


def is_tracing() -> bool:
    """Say whether spans of this process are recorded at all."""
    return _has_provider()


def in_trace() -> bool:
    """Say whether there is a current span, be it recorded or only passed on."""
    return trace.get_current_span().get_span_context().is_valid


def tracer(module: str) -> trace.Tracer:
    """Return the tracer of a module; works before and without :func:`configure_tracing`."""
    return trace.get_tracer(module, version("jetbridge-telemetry"))


def current_traceparent() -> str | None:
    """Return the current span as a W3C ``traceparent``, or None outside any trace."""
    return trace_headers().get(_TRACEPARENT)


@contextmanager
def continuing(traceparent: str | None) -> Iterator[None]:
    """Have what happens inside be part of the sender's trace, without a span of its own."""
    token = attach(remote_context(traceparent))
    try:
        yield
    finally:
        detach(token)


def trace_headers() -> dict[str, str]:
    """Return the headers that continue the current trace on the other side; none outside any trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def remote_context(traceparent: str | None) -> Context:
    """
    Return the context to start a span in, so that it continues the sender's trace.

    Use as ``tracer.start_as_current_span(name, context=remote_context(envelope.traceparent))``.
    None or text that is no traceparent gives an empty context: the span begins a new trace.
    """
    return _propagator.extract({_TRACEPARENT: traceparent} if traceparent else {}, context=Context())


def _has_provider() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _stopper(shutdown: Callable[[], None]) -> StopTracing:
    def stop(timeout_seconds: float = 5.0) -> None:
        # The SDK waits up to 30 s for a collector that does not answer; a draining service must not.
        thread = threading.Thread(target=shutdown, name="jetbridge-tracing-stop", daemon=True)
        thread.start()
        thread.join(timeout_seconds)

    return stop


def _nothing_to_stop(timeout_seconds: float = 5.0) -> None:
    _ = timeout_seconds
