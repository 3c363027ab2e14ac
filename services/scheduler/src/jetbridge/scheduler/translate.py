"""Airflow's workloads as ours: what is published, and what is refused before it is."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from airflow.configuration import conf
from airflow.executors.workloads import ExecuteCallback, ExecuteTask

from jetbridge.bus.topology import MAX_WORK_MESSAGE_BYTES
from jetbridge.bus.workloads import NewWorkload
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.policies import MAX_WAIT_FOR_AGENT_SECONDS
from jetbridge.contracts.records import OnAgentLost

OPTIONS_KEY = "jetbridge"

MAX_SPEC_BYTES = MAX_WORK_MESSAGE_BYTES - 16 * 1024
"""
Room for the rest of the message: headers, and ids that Airflow limits to 250 characters each, in the
message once and as UTF-8 of up to 4 bytes each.
"""

_CALLBACK_WEIGHT = 100
"""The most urgent band: Airflow starts callbacks before tasks, since they complete work already done."""


class RefusedWorkloadError(ValueError):
    """A workload that can never be handed over as it is. The text is shown to the Dag's author."""


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    ``executor_config={"jetbridge": {…}}`` of a task.

    ``on_agent_lost``: whether a task whose agent is lost is run again elsewhere (``reroute``), fails
    (``fail``), and so is retried only if it has retries left, or goes on for ``wait_seconds`` after its
    agent was last heard of (``wait``) and fails only then. What is left out is decided by the policy of the
    task's queue.
    """

    on_agent_lost: OnAgentLost | None = None
    wait_seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_WAIT_FOR_AGENT_SECONDS)] | None = None


def options_of(executor_config: Any) -> TaskOptions:
    """
    Read our part of a task's ``executor_config``; other executors' keys are not ours to judge.

    An unknown key is refused, not ignored: it may be meant to keep the task away from somewhere.
    Raises :class:`RefusedWorkloadError`.
    """
    ours = executor_config.get(OPTIONS_KEY) if isinstance(executor_config, dict) else None
    try:
        return msgspec.convert({} if ours is None else ours, TaskOptions)
    except msgspec.ValidationError as exc:
        known = ", ".join(TaskOptions.__struct_fields__)
        raise RefusedWorkloadError(
            f"executor_config[{OPTIONS_KEY!r}] of this task cannot be used: {exc}. This version of Jetbridge "
            f"knows: {known}"
        ) from exc


def new_workload(workload: ExecuteTask | ExecuteCallback) -> NewWorkload:
    """Return what is handed over for one of Airflow's workloads; raises :class:`RefusedWorkloadError`."""
    translated = _callback(workload) if isinstance(workload, ExecuteCallback) else _task(workload)
    if len(translated.spec) > MAX_SPEC_BYTES:
        raise RefusedWorkloadError(
            f"the workload has {len(translated.spec)} bytes as JSON and the bus takes {MAX_SPEC_BYTES}; "
            f"make what it carries smaller (the kwargs of a callback, the conf of the Dag run)"
        )
    return translated


def workload_id_of(workload: ExecuteTask | ExecuteCallback) -> str:
    """Return the id a workload has on the bus: that of the task instance or of the callback."""
    return str(workload.callback.id) if isinstance(workload, ExecuteCallback) else str(workload.ti.id)


def _task(workload: ExecuteTask) -> NewWorkload:
    ti = workload.ti
    options = options_of(ti.executor_config)
    return NewWorkload(
        workload_id=workload_id_of(workload),
        kind=WorkloadKind.TASK,
        queue=ti.queue,
        priority_weight=ti.priority_weight,
        on_agent_lost=options.on_agent_lost,
        wait_seconds=options.wait_seconds or 0.0,
        coordinates=TaskCoordinates(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index,
            try_number=ti.try_number,
        ),
        spec=_spec(workload),
    )


def _callback(workload: ExecuteCallback) -> NewWorkload:
    data = workload.callback.data
    return NewWorkload(
        workload_id=workload_id_of(workload),
        kind=WorkloadKind.CALLBACK,
        # A callback has no queue of its own; Airflow's other remote executors do the same.
        queue=conf.get_mandatory_value("operators", "default_queue"),
        priority_weight=_CALLBACK_WEIGHT,
        coordinates=TaskCoordinates(dag_id=str(data.get("dag_id", "")), run_id=_run_id_of(data)),
        spec=_spec(workload),
    )


def _run_id_of(data: dict[str, Any]) -> str:
    """Return the Dag run of a deadline's callback, which carries it in the context for the callback."""
    context = (data.get("kwargs") or {}).get("context") or {}
    return str((context.get("dag_run") or {}).get("dag_run_id", ""))


def _spec(workload: ExecuteTask | ExecuteCallback) -> bytes:
    # The token is Airflow's and stays on the plane; the gateway authenticates the lease instead.
    return workload.model_dump_json(exclude={"token"}).encode()
