"""
Structured logs, traces and metrics, set up the same way in every service. Imports no Airflow.

* ``settings``: what the environment may change. ``logs``: structlog and stdlib logging as JSON lines.
* ``redaction``: takes secrets out of everything that is logged.
* ``tracing``: OpenTelemetry from the standard ``OTEL_*`` environment. ``spans``: spans by its conventions.
* ``clean``: takes out of spans what must not leave a process.
* ``metrics``: Prometheus metrics whose names state service, thing and unit. ``status`` serves them,
  ``otlp_metrics`` pushes them, ``measures`` brings them from an agent's other processes.
"""
