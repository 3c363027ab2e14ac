"""For tests: see which spans a module makes, without an exporter or a provider for the whole process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer


def recording_tracer() -> tuple[Tracer, Callable[[], Sequence[ReadableSpan]]]:
    """Return a tracer, and what returns the spans of it that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("tests"), exporter.get_finished_spans
