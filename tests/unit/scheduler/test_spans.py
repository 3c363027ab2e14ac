"""The span of the hand-over stands between the Dag run's trace and what the bus carries on."""

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from jetbridge.scheduler import spans
from jetbridge.scheduler.testing import TRACEPARENT, make_callback, make_task
from jetbridge.scheduler.translate import new_workload
from jetbridge.telemetry.testing import recording_tracer


@pytest.fixture
def exported(monkeypatch):
    tracer, ended = recording_tracer()
    monkeypatch.setattr(spans, "_tracer", tracer)
    return ended


def test_it_is_a_child_of_the_dag_run_and_a_parent_of_the_rest(exported):
    task = make_task(queue="gpu")
    span, traceparent = spans.begin_submit(task, new_workload(task))
    assert exported() == ()
    spans.end_submit(span)
    (done,) = exported()
    assert (done.name, f"{done.parent.trace_id:032x}") == ("send WORK", TRACEPARENT.split("-")[1])
    assert f"{done.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    assert traceparent.split("-")[2] == f"{done.context.span_id:016x}"
    assert done.attributes["jetbridge.queue"] == "gpu"
    assert done.attributes["messaging.destination.name"] == "WORK"
    assert done.kind is SpanKind.PRODUCER
    assert done.attributes["airflow.task_id"] == "t"


def test_a_callback_begins_a_trace_of_its_own(exported):
    callback = make_callback()
    span, traceparent = spans.begin_submit(callback, new_workload(callback))
    spans.end_submit(span)
    assert exported()[0].parent is None
    assert traceparent


def test_a_failure_is_recorded_without_its_text(exported):
    task = make_task()
    span, _ = spans.begin_submit(task, new_workload(task))
    spans.end_submit(span, ValueError("a secret"))
    (done,) = exported()
    assert (done.status.status_code, done.status.description) == (StatusCode.ERROR, None)
    assert done.attributes["error.type"] == "ValueError"


def test_without_tracing_the_dag_run_s_trace_is_passed_on():
    task = make_task()
    span, traceparent = spans.begin_submit(task, new_workload(task))
    spans.end_submit(span)
    assert traceparent == TRACEPARENT
