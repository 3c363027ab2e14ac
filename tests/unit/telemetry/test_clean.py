"""Whatever a span was given, no text of an error and no secret leaves the process with it."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

from jetbridge.telemetry.clean import CleanExporter

MARK = "m4rk3r"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(CleanExporter(exporter)))
    return provider.get_tracer("tests")


def test_an_exception_leaves_with_its_type_alone(tracer, exporter):
    with pytest.raises(RuntimeError), tracer.start_as_current_span("s"):
        raise RuntimeError(MARK)
    (span,) = exporter.get_finished_spans()
    assert MARK not in span.to_json()
    assert span.events[0].attributes == {"exception.type": "RuntimeError"}
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)


def test_the_name_of_a_type_stays_as_the_description(tracer, exporter):
    with tracer.start_as_current_span("s") as span:
        span.set_status(Status(StatusCode.ERROR, "Exception: KeyError"))
    assert exporter.get_finished_spans()[0].status.description == "Exception: KeyError"


def test_secrets_in_attributes_and_events_are_masked(tracer, exporter):
    with tracer.start_as_current_span(
        "s", attributes={"note": "Bearer abc123def456=", "password": MARK}
    ) as span:
        span.add_event("http.retry", {"attempt_number": 2, "error": MARK})
    (span,) = exporter.get_finished_spans()
    assert span.attributes == {"note": "Bearer ***", "password": "***"}
    assert span.events[0].attributes == {"attempt_number": 2}


def test_everything_else_stays_as_it_was(tracer, exporter):
    with (
        tracer.start_as_current_span("outer") as outer,
        tracer.start_as_current_span("s", kind=SpanKind.CLIENT, attributes={"n": 1, "list": ["a", "b"]}),
    ):
        pass
    span, _ = exporter.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("s", SpanKind.CLIENT, outer.get_span_context())
    assert (span.attributes["n"], list(span.attributes["list"])) == (1, ["a", "b"])
    assert span.start_time <= span.end_time


def test_it_passes_on_what_an_exporter_is_told(exporter):
    clean = CleanExporter(exporter)
    assert clean.force_flush(1000)
    clean.shutdown()
    assert exporter._stopped
