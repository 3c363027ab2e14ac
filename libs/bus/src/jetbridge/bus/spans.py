"""Spans of messages on the bus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jetbridge.telemetry.spans import messaging, span
from jetbridge.telemetry.tracing import current_traceparent, in_trace, remote_context, tracer

_tracer = tracer(__name__)


@contextmanager
def sending(subject: str, message_id: str, traceparent: str | None) -> Iterator[str | None]:
    """Open the span of a message that is sent within a trace, and yield what the message should carry."""
    if not traceparent:
        yield None
        return
    with span(
        _tracer,
        f"send {subject}",
        context=remote_context(traceparent),
        kind="producer",
        attributes=messaging("publish", "send", subject, message_id),
    ):
        yield current_traceparent() or traceparent


@contextmanager
def asking(subject: str) -> Iterator[None]:
    """Open the span of a request to the bridge that is made within a trace."""
    if not in_trace():
        yield
        return
    with span(_tracer, f"request {subject}", kind="client", attributes=messaging("request", "send", subject)):
        yield


@contextmanager
def receiving(
    destination: str, operation: str, traceparent: str | None, *, message_id: str = ""
) -> Iterator[None]:
    """Open the span of handling a message that says which trace it is part of; others get none."""
    if not traceparent:
        yield
        return
    with span(
        _tracer,
        f"{operation} {destination}",
        context=remote_context(traceparent),
        kind="consumer",
        attributes=messaging(operation, "process", destination, message_id),
    ):
        yield


def traceparent_of(headers: Mapping[str, str] | None) -> str | None:
    """Return the W3C ``traceparent`` among a message's headers."""
    return (headers or {}).get("traceparent")
