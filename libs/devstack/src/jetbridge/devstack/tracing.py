"""Environment with which the stack's processes send their traces and metrics to one collector."""

from __future__ import annotations

from collections.abc import Mapping

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SEND_AFTER_MILLISECONDS = 500
"""On one's own machine somebody waits for the spans; OpenTelemetry's default is 5 s."""


def otel_environment(endpoint: str) -> dict[str, str]:
    """Return what any process needs to send traces and metrics to ``endpoint``; nothing without one."""
    if not endpoint:
        return {}
    return {
        ENDPOINT: endpoint,
        # Airflow takes "otlp" for gRPC; this name means the same to it and to us.
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        "OTEL_BSP_SCHEDULE_DELAY": str(SEND_AFTER_MILLISECONDS),
        "OTEL_METRIC_EXPORT_INTERVAL": str(10 * SEND_AFTER_MILLISECONDS),
    }


def airflow_tracing(endpoint: str) -> dict[str, str]:
    """Return the same for Airflow's processes, which have a switch of their own."""
    return otel_environment(endpoint) | ({"AIRFLOW__TRACES__OTEL_ON": "True"} if endpoint else {})


def named(environment: Mapping[str, str], service: str) -> dict[str, str]:
    """Return the environment with the service's name for its traces, if it sends any."""
    return {**environment, **({"OTEL_SERVICE_NAME": service} if ENDPOINT in environment else {})}
