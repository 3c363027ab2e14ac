"""Every metric's name says service, thing and unit."""

from __future__ import annotations

import pytest
from prometheus_client import Counter, Gauge

from jetbridge.telemetry.metrics import MetricNameError, Metrics, badly_named


def test_names_are_built_from_their_parts() -> None:
    metrics = Metrics("gateway", process_metrics=False)
    metrics.counter("handled", "requests", "Requests answered.", ["status"]).labels("200").inc()
    metrics.gauge("open", "polls", "Polls held now.").set(3)
    metrics.histogram("accept_duration", "seconds", "Time from offer to accept.").observe(0.2)
    body, content_type = metrics.render()
    text = body.decode()
    assert content_type.startswith("text/plain")
    assert 'jetbridge_gateway_handled_requests_total{status="200"} 1.0' in text
    assert "jetbridge_gateway_open_polls 3.0" in text
    assert 'jetbridge_gateway_accept_duration_seconds_bucket{le="0.25"} 1.0' in text
    assert badly_named(metrics.registry) == []


def test_openmetrics_is_served_to_who_asks_for_it() -> None:
    body, content_type = Metrics("gateway").render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("what", "unit"),
    [
        ("latency", "milliseconds"),
        ("Open", "polls"),
        ("", "polls"),
        ("open-now", "polls"),
        ("open_total", "polls"),
    ],
)
def test_a_name_against_the_rule_is_refused(what: str, unit: str) -> None:
    with pytest.raises(MetricNameError):
        Metrics("gateway").gauge(what, unit, "…")


def test_the_check_finds_metrics_registered_around_the_rule() -> None:
    metrics = Metrics("gateway")
    Gauge("open_polls", "…", registry=metrics.registry)
    Counter("jetbridge_gateway_latency_ms", "…", registry=metrics.registry)
    assert badly_named(metrics.registry) == ["jetbridge_gateway_latency_ms", "open_polls"]


def test_process_metrics_are_there_and_exempt() -> None:
    metrics = Metrics("gateway")
    assert b"process_resident_memory_bytes" in metrics.render()[0]
    assert badly_named(metrics.registry) == []
