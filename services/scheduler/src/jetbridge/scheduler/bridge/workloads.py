"""
Putting a workload whose agent was lost back into Airflow's queue.

For Airflow 3.3. A rerouted task is to Airflow what a cleared one is: the attempt goes into the task's
history and the task gets a new id (``prepare_db_for_next_try``), so that whatever the lost agent may
still say about the old id finds nothing. Its ``max_tries`` grows by one: a lost machine is not the
task's failure, and must not cost it one of its retries.
"""

from __future__ import annotations

from uuid import UUID

from airflow.models.callback import Callback
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import CallbackState, TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session

from jetbridge.contracts.failover import (
    REQUEUE_AREA,
    REQUEUE_OPERATION,
    RequeueOutcome,
    RequeueWorkload,
    WorkloadRequeued,
)
from jetbridge.contracts.messages import WorkloadKind
from jetbridge.contracts.rpc import rpc_subject
from jetbridge.scheduler.bridge.database import Database
from jetbridge.scheduler.bridge.rpc import Nudge, Operation

AUDIT_EVENT = "jetbridge.rerouted"

_HELD_BY_AN_AGENT = frozenset(
    {TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING}
)
"""In any other state the task ended, was deferred or was taken back before its agent was lost."""


def requeue_operation(database: Database, nudge: Nudge) -> Operation[RequeueWorkload]:
    """Return ``rpc.workloads.requeue``."""

    async def handle(request: RequeueWorkload) -> WorkloadRequeued:
        function = requeue_task if request.kind is WorkloadKind.TASK else requeue_callback
        answer = await database.transaction(function, request)
        await nudge()
        return answer

    return Operation(rpc_subject(REQUEUE_AREA, REQUEUE_OPERATION), RequeueWorkload, handle)


def requeue_task(session: Session, request: RequeueWorkload) -> WorkloadRequeued:
    """Archive the attempt and let Airflow schedule the task anew. The row stays locked until the commit."""
    ti = session.scalar(
        select(TaskInstance).where(TaskInstance.id == UUID(request.workload_id)).with_for_update()
    )
    if ti is None:
        return _not_needed("no task instance has this id any more")
    if ti.state not in _HELD_BY_AN_AGENT:
        return _not_needed(f"the task instance is {ti.state}")
    session.add(Log(event=AUDIT_EVENT, task_instance=ti.key, extra=request.reason))
    ti.prepare_db_for_next_try(session)
    ti.max_tries += 1
    ti.state = None
    ti.external_executor_id = None
    return WorkloadRequeued(outcome=RequeueOutcome.REQUEUED.value)


def requeue_callback(session: Session, request: RequeueWorkload) -> WorkloadRequeued:
    """Let the scheduler hand a callback over again. Its id stays, so its submission tells the lives apart."""
    callback = session.get(Callback, UUID(request.workload_id), with_for_update=True)
    if callback is None:
        return _not_needed("no callback has this id any more")
    if callback.state not in (CallbackState.QUEUED, CallbackState.RUNNING):
        return _not_needed(f"the callback is {callback.state}")
    callback.state = CallbackState.PENDING
    return WorkloadRequeued(outcome=RequeueOutcome.REQUEUED.value)


def _not_needed(detail: str) -> WorkloadRequeued:
    return WorkloadRequeued(outcome=RequeueOutcome.NOT_NEEDED.value, detail=detail)
