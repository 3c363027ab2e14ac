"""What /metrics shows also arrives at a real OTLP receiver, under the same names and with the same values."""

from __future__ import annotations

import os
import socket

import pytest

from jetbridge.devstack.otlp import Collector
from jetbridge.telemetry.exporters import ExporterConfigurationError
from jetbridge.telemetry.metrics import Metrics
from jetbridge.telemetry.otlp_metrics import pushing

PATIENCE_SECONDS = 30


@pytest.fixture(autouse=True)
def _no_otel_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def some_metrics() -> Metrics:
    metrics = Metrics("gateway")
    metrics.counter("made", "offers", "Offers").inc(3)
    metrics.gauge("waiting", "workloads", "Waiting", ["queue"]).labels("gpu").set(7)
    delay = metrics.histogram("delay", "seconds", "Delay", ["route"], buckets=(0.1, 1.0))
    for seconds in (0.05, 0.5, 0.6, 30.0):
        delay.labels("/v1").observe(seconds)
    return metrics


def test_everything_arrives_as_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = some_metrics()
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        with pushing("gateway", metrics.registry.collect):
            assert collector.points == []  # nothing before the first interval, a minute
        points = {point.name: point for point in collector.points}
    assert {point.service for point in points.values()} == {"jetbridge-gateway"}
    assert points["jetbridge_gateway_made_offers"].value == 3
    assert points["jetbridge_gateway_made_offers"].unit == "{offers}"
    assert points["jetbridge_gateway_waiting_workloads"].value == 7
    assert points["jetbridge_gateway_waiting_workloads"].attributes == {"queue": "gpu"}
    delay = points["jetbridge_gateway_delay_seconds"]
    assert (delay.unit, delay.value, delay.count, delay.buckets) == ("s", 31.15, 4, (1, 2, 1))
    assert points["process_resident_memory_bytes"].unit == "By"
    shown = {family.name for family in metrics.registry.collect()}
    assert points.keys() == shown


def test_it_is_repeated_at_the_standard_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics("router", process_metrics=False)
    counter = metrics.counter("requeued", "workloads", "Put back")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{collector.endpoint}/v1/metrics")
        with pushing("router", metrics.registry.collect):
            collector.wait_points(lambda points: len(points) > 0, PATIENCE_SECONDS)
            counter.inc()
            collector.wait_points(lambda points: any(p.value == 1 for p in points), PATIENCE_SECONDS)
    assert collector.points[0].value == 0
    assert collector.points[-1].value == 1


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"},
        {"OTEL_METRICS_EXPORTER": "prometheus"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"},
    ],
)
def test_nothing_is_pushed_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def never() -> list[object]:
        raise AssertionError

    with pushing("gateway", never):  # type: ignore[arg-type]
        pass


def test_an_exporter_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "carrier-pigeon")
    with pytest.raises(ExporterConfigurationError, match="carrier-pigeon"), pushing("gateway", list):
        pass


def test_a_collector_that_is_away_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with pushing("gateway", some_metrics().registry.collect):
        pass
