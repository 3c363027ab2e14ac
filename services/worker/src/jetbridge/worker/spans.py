"""
The worker's part of an attempt's trace.

    process WORK (gateway) ─► worker.attempt ─┬─► POST …/accept ─► (gateway)
                                              ├─► worker.run ─► the supervisor's and the task's own spans
                                              └─► POST …/report ─► (gateway)

The agent opens ``worker.run`` and not the supervisor: that must fork the task before it may have an exporter.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from jetbridge.contracts.api import Offer
from jetbridge.telemetry.spans import Attributes, span
from jetbridge.telemetry.tracing import current_traceparent, remote_context, tracer

_tracer = tracer(__name__)


async def attempt(offer: Offer, carrying: Coroutine[Any, Any, None]) -> None:
    """Await what carries a lease from its offer to its end, within the trace that the offer is part of."""
    coordinates = offer.coordinates
    attributes: Attributes = {
        "jetbridge.lease": offer.lease,
        "jetbridge.queue": offer.queue,
        "airflow.dag_id": coordinates.dag_id,
        "airflow.dag_run.run_id": coordinates.run_id,
        "airflow.task_id": coordinates.task_id,
        "airflow.task_instance.map_index": coordinates.map_index,
        "airflow.task_instance.try_number": coordinates.try_number,
    }
    context = remote_context(offer.traceparent)
    with span(_tracer, "worker.attempt", context=context, attributes=attributes):
        await carrying


@contextmanager
def run() -> Iterator[str]:
    """Open the span of the workload's processes, and yield the ``traceparent`` they continue, if any."""
    with span(_tracer, "worker.run"):
        yield current_traceparent() or ""
