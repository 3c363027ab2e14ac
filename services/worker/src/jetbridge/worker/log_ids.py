"""The ids by which lines of a supervisor's log are found: agent, lease, task instance and trace."""

from __future__ import annotations

import os
from functools import cache

import structlog

from jetbridge.contracts.ids import LeaseKey
from jetbridge.worker.frames import Order
from jetbridge.worker.identity import AGENT_NAME_VARIABLE


def bind(order: Order) -> None:
    """
    Have this process' lines carry the ids, and those of what it forks not.

    The task's own log is one attempt's already, and each id would be beside every line that people read.
    """
    ids = {
        "agent": os.environ.get(AGENT_NAME_VARIABLE, ""),
        "lease": order.lease,
        "ti_id": LeaseKey.parse(order.lease).workload_id,
    }
    if order.traceparent:
        ids["trace_id"] = order.traceparent.split("-")[1]
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**ids)
    _keep_from_children()


@cache
def _keep_from_children() -> None:
    os.register_at_fork(after_in_child=structlog.contextvars.clear_contextvars)
