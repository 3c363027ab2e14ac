"""Spans of requests that are part of a trace. Polls and heartbeats are part of none and cost nothing here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Scope

from jetbridge.telemetry.spans import MaybeSpan, http_status, span
from jetbridge.telemetry.tracing import remote_context, tracer

_tracer = tracer(__name__)
_HEADER = b"traceparent"
_KIND = re.compile(r"/execution/([a-z][a-z-]{0,40})(?:/|$)")
"""What a request to Airflow is about. The rest of its path names runs, keys and connections."""


@contextmanager
def continued(scope: Scope) -> Iterator[MaybeSpan]:
    """Open a span for a request that says which trace it is part of; yields None for others."""
    sent = next((value for name, value in scope["headers"] if name == _HEADER), b"")
    if not sent:
        yield None
        return
    context = remote_context(sent.decode("latin-1"))
    attributes = {"http.request.method": scope["method"], "url.scheme": scope["scheme"]}
    with span(_tracer, scope["method"], context=context, kind="server", attributes=attributes) as opened:
        yield opened


def described(span: MaybeSpan, scope: Scope, status: int) -> None:
    """Name the span by the route that was found, which is known only at the end."""
    if span is None:
        return
    route = getattr(scope.get("route"), "path", None)
    if route:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    http_status(span, status, server=True)


def upstream_template(path: str) -> str:
    """Return the path of a request to Airflow with all but its kind left out."""
    found = _KIND.match(path)
    return f"/execution/{found[1]}/…" if found else "/execution/…"
