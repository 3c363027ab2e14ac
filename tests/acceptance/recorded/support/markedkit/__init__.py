"""What the marker tests plant, and how it is looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from jetbridge.devstack.markers import found_in
from jetbridge.devstack.stack import DevStack

DAG_ID, HELD = "marked", "held"
RUN_SECONDS = 240

PLANTED = (
    "dag-source",
    "dag-docs",
    "connection",
    "variable",
    "variable-rendered",
    "environment",
    "log-lines",
    "xcom-small",
    "xcom-nested",
    "xcom-large",
    "xcom-mapped",
    "task-arguments",
    "state-store",
    "asset-event-extra",
    "exception-text",
    "operator-links",
    "trigger-arguments",
    "carried-over",
    "event-payload",
)
OPENED_BY_QUEUE = (
    "rendered-fields",
    "xcom-values",
    "state-store-values",
    "operator-links",
    "asset-event-extra",
    "run-conf",
    "human-input",
    "variables",
)
"""What tasks send. Each has a queue of its own name, whose policy opens it and nothing else."""

QUEUES = (*OPENED_BY_QUEUE, "connections", "none-open")
"""``connections`` go from the plane to the task, which looks for itself what it gets."""


def found(
    everything: Callable[[], Iterable[tuple[str, bytes]]], markers: Mapping[object, str]
) -> dict[object, list[str]]:
    """Return which markers are where."""
    names = {marker: name for name, marker in markers.items()}
    hits: dict[object, list[str]] = {}
    for place, data in everything():
        for marker in found_in(data, names):
            hits.setdefault(names[marker], []).append(place)
    return hits


def states(stack: DevStack, run_id: str, dag_id: str = DAG_ID) -> dict[str, str]:
    """Return the state of each task of a run."""
    return {one["task_id"]: one["state"] for one in stack.client.task_instances(dag_id, run_id)}
