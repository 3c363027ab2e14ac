"""Names and attributes are the semantic conventions'; outside a trace nothing is made."""

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from jetbridge.telemetry import spans
from jetbridge.telemetry.testing import recording_tracer
from jetbridge.telemetry.tracing import continuing, current_traceparent, trace_headers

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exported(monkeypatch):
    tracer, ended = recording_tracer()
    monkeypatch.setattr(spans, "_tracer", tracer)
    return ended


def test_a_request_outside_any_trace_makes_no_span(exported):
    with spans.http_client("POST", "/v1/agents", "plane:8443") as span:
        assert span is None
        assert trace_headers() == {}
        spans.http_status(span, 500)
    assert exported() == ()


@pytest.mark.parametrize(
    ("server", "address", "port"),
    [("plane:8443", "plane", 8443), ("plane", "plane", None), ("[::1]:8443", "[::1]", 8443)],
)
def test_a_request_in_a_trace_is_a_client_span_of_it(exported, server, address, port):
    with continuing(TRACEPARENT), spans.http_client("POST", "/v1/leases/{lease}/accept", server) as span:
        spans.http_status(span, 200)
        assert trace_headers()["traceparent"].split("-")[2] == f"{span.get_span_context().span_id:016x}"
    (done,) = exported()
    assert (done.name, done.kind) == ("POST /v1/leases/{lease}/accept", SpanKind.CLIENT)
    assert f"{done.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    assert done.attributes["server.address"] == address
    assert done.attributes.get("server.port") == port
    assert done.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("status", "server", "failed"),
    [(404, False, True), (404, True, False), (503, True, True), (200, False, False)],
)
def test_which_status_is_an_error(exported, status, server, failed):
    with continuing(TRACEPARENT), spans.http_client("GET", "/", "h") as span:
        spans.http_status(span, status, server=server)
    (done,) = exported()
    assert (done.status.status_code is StatusCode.ERROR) is failed
    assert done.attributes.get("error.type") == (str(status) if failed else None)


def test_an_error_is_noted_by_its_type(exported):
    with pytest.raises(KeyError), spans.span(spans._tracer, "s"):
        raise KeyError("m4rk3r")
    (done,) = exported()
    assert done.attributes["error.type"] == "KeyError"
    assert "m4rk3r" not in done.to_json()


def test_what_began_before_is_shown_so(exported):
    with spans.span(spans._tracer, "s", begun_seconds_ago=60.0):
        pass
    (done,) = exported()
    assert done.end_time - done.start_time >= 60e9


def test_after_the_block_the_trace_is_left():
    with continuing(TRACEPARENT):
        assert current_traceparent() == TRACEPARENT
    assert current_traceparent() is None
