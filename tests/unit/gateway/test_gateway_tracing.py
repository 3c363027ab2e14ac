"""Requests that are part of a trace get a span by their route; all others none."""

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from jetbridge.gateway import tracing
from jetbridge.telemetry.testing import recording_tracer
from jetbridge.telemetry.tracing import current_traceparent

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Route:
    path = "/v1/leases/{lease}/accept"


@pytest.fixture
def exported(monkeypatch):
    tracer, ended = recording_tracer()
    monkeypatch.setattr(tracing, "_tracer", tracer)
    return ended


def scope(*headers, **more):
    return {"method": "POST", "scheme": "https", "headers": list(headers), **more}


def test_a_request_without_a_trace_has_no_span(exported):
    asked = scope()
    with tracing.continued(asked) as span:
        tracing.described(span, asked, 200)
        assert span is None
    assert exported() == ()


def test_a_request_of_a_trace_is_named_by_its_route(exported):
    asked = scope((b"traceparent", TRACEPARENT.encode()))
    with tracing.continued(asked) as span:
        asked["route"] = Route
        tracing.described(span, asked, 200)
    (done,) = exported()
    assert (done.name, done.kind) == ("POST /v1/leases/{lease}/accept", SpanKind.SERVER)
    assert f"{done.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    assert done.attributes == {
        "http.request.method": "POST",
        "url.scheme": "https",
        "http.route": "/v1/leases/{lease}/accept",
        "http.response.status_code": 200,
    }


def test_a_path_that_fits_no_route_is_not_in_the_name(exported):
    asked = scope((b"traceparent", TRACEPARENT.encode()))
    with tracing.continued(asked) as span:
        tracing.described(span, asked, 404)
    (done,) = exported()
    assert (done.name, done.status.status_code) == ("POST", StatusCode.UNSET)


@pytest.mark.parametrize("text", [b"garbage", b"", b"\xff\xfe", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01"])
def test_what_is_no_traceparent_begins_a_trace_or_none(exported, text):
    with tracing.continued(scope((b"traceparent", text))):
        pass
    assert all(done.parent is None for done in exported())


def test_an_unsampled_trace_is_passed_on_unrecorded(exported):
    unsampled = TRACEPARENT[:-1] + "0"
    with tracing.continued(scope((b"traceparent", unsampled.encode()))):
        assert current_traceparent().endswith("-00")
    assert exported() == ()


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/execution/xcoms/dag/run/task/key-with-a-secret", "/execution/xcoms/…"),
        ("/execution/task-instances/1/run", "/execution/task-instances/…"),
        ("/execution/health", "/execution/health/…"),
        ("/execution/%73ecret/x", "/execution/…"),
        ("/execution/", "/execution/…"),
    ],
)
def test_of_a_path_to_airflow_only_the_kind_is_shown(path, template):
    assert tracing.upstream_template(path) == template
