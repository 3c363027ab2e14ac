"""
Takes out of spans what they must not carry: texts of errors, stack traces, secrets.

Spans of task processes are made by Airflow, by operators and by the task's own code, and all of them record
exceptions. The text of an exception may quote a row of data or a password, and traces may go to another place
than the site's logs. What stays is the exception's type; the log has the rest, under the same trace id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from jetbridge.telemetry.redaction import redact_field

_FREE_TEXT = frozenset(
    {"exception.message", "exception.stacktrace", "exception.escaped", "error", "error.message"}
)
"""Attributes that hold whatever an error said; ``error`` is what Airflow's client adds for a retry."""

_NAME_OF_A_TYPE = re.compile(r"(?:Exception: )?[A-Za-z_][\w.]*", re.ASCII)


class CleanExporter(SpanExporter):
    """Passes spans on to another exporter without what they must not carry."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export cleaned copies."""
        return self._exporter.export([clean(span) for span in spans])

    def shutdown(self) -> None:
        """Stop the exporter behind this one."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have the exporter behind this one send what it holds."""
        return self._exporter.force_flush(timeout_millis)


def clean(span: ReadableSpan) -> ReadableSpan:
    """Return the span as it may leave this process."""
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(one.name, _attributes(one.attributes), one.timestamp) for one in span.events],
        links=span.links,
        kind=span.kind,
        status=_status(span.status),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(attributes: Any) -> dict[str, Any]:
    return {
        name: redact_field(name, value)
        for name, value in (attributes or {}).items()
        if name not in _FREE_TEXT
    }


def _status(status: Status) -> Status:
    said = status.description
    return status if said is None or _NAME_OF_A_TYPE.fullmatch(said) else Status(status.status_code)
