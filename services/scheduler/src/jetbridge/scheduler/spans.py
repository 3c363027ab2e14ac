"""The span of handing a workload over: from the executor's decision to the bus's acknowledgement."""

from __future__ import annotations

from typing import Any

from airflow.executors.workloads import ExecuteCallback, ExecuteTask
from opentelemetry.trace import Span, SpanKind, use_span

from jetbridge.bus.workloads import NewWorkload
from jetbridge.contracts.subjects import WORK_STREAM
from jetbridge.telemetry.spans import failed, messaging
from jetbridge.telemetry.tracing import current_traceparent, remote_context, tracer

_tracer = tracer(__name__)


def begin_submit(workload: ExecuteTask | ExecuteCallback, new: NewWorkload) -> tuple[Span, str | None]:
    """
    Return a started span in the trace of the workload's Dag run, and the ``traceparent`` to send along.

    Without a tracer provider the Dag run's own ``traceparent``, if any, is what is sent.
    """
    carrier: dict[str, Any] = (isinstance(workload, ExecuteTask) and workload.ti.context_carrier) or {}
    span = _tracer.start_span(
        f"send {WORK_STREAM}",
        context=remote_context(carrier.get("traceparent")),
        kind=SpanKind.PRODUCER,
        attributes={
            **messaging("publish", "send", WORK_STREAM),
            "jetbridge.workload_id": new.workload_id,
            "jetbridge.kind": new.kind,
            "jetbridge.queue": new.queue,
            "airflow.dag_id": new.coordinates.dag_id,
            "airflow.dag_run.run_id": new.coordinates.run_id,
            "airflow.task_id": new.coordinates.task_id,
            "airflow.task_instance.map_index": new.coordinates.map_index,
            "airflow.task_instance.try_number": new.coordinates.try_number,
        },
    )
    with use_span(span):
        return span, current_traceparent()


def end_submit(span: Span, error: BaseException | None = None) -> None:
    """End the span; an error is recorded by its type only, since its text may hold anything."""
    if error is not None:
        failed(span, type(error).__name__)
    span.end()
