"""
Spans as OpenTelemetry's semantic conventions for HTTP and messaging have them (version 1.41).

Names and attributes hold what is the same for many requests: a route, not a path; a stream, not a message.
Without a tracer provider these cost a few microseconds, and what arrived is passed on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from jetbridge.telemetry.tracing import in_trace, tracer

_tracer = tracer(__name__)
_SERVER_ERRORS = 500
_CLIENT_ERRORS = 400

Attributes = Mapping[str, AttributeValue]
Kind = Literal["internal", "server", "client", "producer", "consumer"]
MaybeSpan = Span | None


@contextmanager
def span(  # noqa: PLR0913 - what OpenTelemetry takes
    tracing: Tracer,
    name: str,
    *,
    context: Context | None = None,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    begun_seconds_ago: float = 0.0,
) -> Iterator[Span]:
    """Open a span; an error marks it by its type alone, since its text may hold anything."""
    started = time.time_ns() - int(begun_seconds_ago * 1e9) if begun_seconds_ago else None
    with tracing.start_as_current_span(
        name,
        context=context,
        kind=SpanKind[kind.upper()],
        attributes=attributes,
        start_time=started,
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except Exception as error:
            failed(opened, type(error).__name__)
            raise


def failed(span: Span, kind: str) -> None:
    """Mark a span as failed; ``kind`` is an error's type or a status, never its text."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


@contextmanager
def http_client(method: str, template: str, server: str) -> Iterator[MaybeSpan]:
    """
    Open a span around a request that is part of a trace; yields None for one that is not.

    ``template`` is the path with names in place of ids, ``server`` is ``host`` or ``host:port``.
    """
    if not in_trace():
        yield None
        return
    host, _, port = server.rpartition(":") if server.rpartition(":")[2].isdigit() else (server, "", "")
    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "url.template": template,
        "server.address": host,
    }
    if port:
        attributes["server.port"] = int(port)
    with span(_tracer, f"{method} {template}", kind="client", attributes=attributes) as opened:
        yield opened


def http_status(span: MaybeSpan, status: int, *, server: bool = False) -> None:
    """Note a response's status; a server's span fails with 5xx only, a client's with 4xx as well."""
    if span is not None:
        span.set_attribute("http.response.status_code", status)
        if status >= (_SERVER_ERRORS if server else _CLIENT_ERRORS):
            failed(span, str(status))


def messaging(operation: str, kind: str, destination: str, message_id: str = "") -> dict[str, AttributeValue]:
    """
    Return the attributes of a messaging span.

    ``operation`` is its name in NATS' words, ``kind`` one of the conventions' (``send``, ``process``),
    ``destination`` a stream or a subject of which there are few.
    """
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
    }
    if message_id:
        attributes["messaging.message.id"] = message_id
    return attributes
