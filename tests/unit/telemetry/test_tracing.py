"""Trace context travels with or without an exporter; spans really reach a collector."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry import trace

from jetbridge.devstack.otlp import Collector
from jetbridge.telemetry import tracing
from jetbridge.telemetry.exporters import exporter_names
from jetbridge.telemetry.tracing import TracingConfigurationError, current_traceparent, remote_context

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _no_otel_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def test_without_an_exporter_nothing_is_configured_and_a_context_is_passed_on() -> None:
    stop = tracing.configure_tracing("gateway")
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert current_traceparent() is None
    with tracing.tracer(__name__).start_as_current_span("s", context=remote_context(TRACEPARENT)) as span:
        assert not span.is_recording()
        assert current_traceparent() == TRACEPARENT
    stop()


@pytest.mark.parametrize("text", [None, "", "garbage", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_what_is_no_traceparent_begins_a_new_trace(text: str | None) -> None:
    outer = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    with (
        trace.use_span(outer),
        tracing.tracer(__name__).start_as_current_span("s", context=remote_context(text)),
    ):
        assert current_traceparent() is None


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, []),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp", "console"]),
    ],
)
def test_the_standard_environment_decides(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], names: list[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert exporter_names("traces") == names


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "pigeon"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"},
    ],
)
def test_an_exporter_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TracingConfigurationError, match="pigeon"):
        tracing.configure_tracing("gateway")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


FORKING = """
import os, sys
from jetbridge.telemetry.tracing import configure_tracing, current_traceparent, remote_context, tracer
parent = sys.argv[1]
child = os.fork()  # before any tracing: the parent stays single-threaded
if child == 0:
    stop = configure_tracing("worker")
    with tracer("test").start_as_current_span("in the child", context=remote_context(parent)):
        pass
    stop(20.0)
    stop(20.0)
    os._exit(0)  # as Airflow's children end: no atexit hook runs
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_exports_its_spans_into_the_senders_trace(collector: Collector) -> None:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    subprocess.run([sys.executable, "-c", FORKING, TRACEPARENT], env=environment, check=True, timeout=60)
    (span,) = collector.spans
    assert (span.service, span.name) == ("jetbridge-worker", "in the child")
    assert (span.trace, span.parent) == tuple(TRACEPARENT.split("-")[1:3])


STOPPING = """
import sys
from jetbridge.telemetry.tracing import configure_tracing, tracer
stop = configure_tracing("gateway")
with tracer("test").start_as_current_span("lost"):
    pass
stop(0.2)
print("stopped", "opentelemetry.sdk" in sys.modules)
sys.stdout.flush()
import os; os._exit(0)
"""


def test_stopping_does_not_wait_for_a_collector_that_never_answers() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # listens, never serves
        endpoint = f"http://127.0.0.1:{silent.server_port}"
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        done = subprocess.run(
            [sys.executable, "-c", STOPPING],
            env=environment,
            check=True,
            timeout=25,  # below the 30 s that the SDK would wait
            capture_output=True,
            text=True,
        )
    assert done.stdout == "stopped True\n"


def test_without_an_exporter_the_sdk_is_not_imported() -> None:
    script = STOPPING.replace("stop(0.2)", "stop()")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "stopped False\n"
