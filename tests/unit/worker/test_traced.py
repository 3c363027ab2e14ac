"""The forks of a worker trace with exporters of their own, and pass on what arrived when they cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jetbridge.devstack.otlp import Collector
from jetbridge.telemetry.tracing import current_traceparent, trace_headers
from jetbridge.worker import traced

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

SUPERVISOR = """
import os, sys, threading
from jetbridge.telemetry.tracing import tracer
from jetbridge.worker import traced
from opentelemetry import trace

traced.preload()
assert "opentelemetry.sdk" in sys.modules
with traced.supervised(sys.argv[1]):
    assert threading.active_count() == 1, "an exporter's thread would be forked"
    task = os.fork()
    with tracer("t").start_as_current_span("in the task" if task == 0 else "in the supervisor"):
        pass
    if task == 0:
        provider = trace.get_tracer_provider()
        assert os.fork() or os._exit(0)
        assert trace.get_tracer_provider() is provider, "the task's own forks change nothing"
        provider.force_flush()
        os._exit(0)
    assert os.waitpid(task, 0)[1] == 0
"""


@pytest.fixture(autouse=True)
def _no_otel(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def test_task_and_supervisor_each_send_their_spans_into_the_same_trace():
    with Collector() as collector:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        subprocess.run(
            [sys.executable, "-c", SUPERVISOR, TRACEPARENT], env=environment, check=True, timeout=60
        )
        spans = {(one.service, one.name, one.parent) for one in collector.spans}
    parent = TRACEPARENT.split("-")[2]
    assert spans == {
        ("jetbridge-task", "in the task", parent),
        ("jetbridge-worker", "in the supervisor", parent),
    }


def test_without_an_exporter_the_trace_is_passed_on_all_the_same():
    with traced.supervised(TRACEPARENT):
        assert trace_headers() == {"traceparent": TRACEPARENT}
    assert current_traceparent() is None


def test_without_a_trace_nothing_happens():
    with traced.supervised(""):
        assert trace_headers() == {}


def test_the_task_continues_from_the_worker_and_keeps_what_else_airflow_says():
    ti = {"id": "1", "context_carrier": {"traceparent": "00-1", "tracestate": "airflow/x=2"}}
    traced.continue_in(ti, TRACEPARENT)
    assert ti["context_carrier"] == {"traceparent": TRACEPARENT, "tracestate": "airflow/x=2"}


@pytest.mark.parametrize("ti", [{}, {"context_carrier": None}])
def test_a_task_without_a_carrier_gets_one(ti):
    traced.continue_in(ti, TRACEPARENT)
    assert ti == {"context_carrier": {"traceparent": TRACEPARENT}}


def test_an_untraced_task_is_left_as_it_is():
    ti = {"context_carrier": {"traceparent": "00-1"}}
    traced.continue_in(ti, "")
    assert ti == {"context_carrier": {"traceparent": "00-1"}}


def test_an_exporter_that_is_not_installed_is_said_and_stops_nothing(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    traced.preload()
