"""Making a dead scheduler's queued tasks into workloads again, from the metadata database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
from airflow.executors.workloads import ExecuteTask
from airflow.models.taskinstance import TaskInstance
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import joinedload, object_session

log = structlog.get_logger(__name__)


def rebuild(tis: Sequence[TaskInstance]) -> Iterator[tuple[TaskInstance, ExecuteTask | None]]:
    """
    Return the workload of each task instance; None for one Airflow's own schema refuses.

    The scheduler has loaded a few columns of them only. Two queries get the rest of all.
    """
    session = object_session(tis[0]) if tis else None
    if session is not None:
        session.scalars(
            select(TaskInstance)
            .where(TaskInstance.id.in_([ti.id for ti in tis]))
            .options(joinedload(TaskInstance.dag_model), joinedload(TaskInstance.dag_run))
            .execution_options(populate_existing=True)
        ).unique().all()
    for ti in tis:
        try:
            yield ti, ExecuteTask.make(ti)  # without a token: it would not leave the plane anyway
        except ValidationError as exc:  # a row of Airflow 2 without a Dag version, for example
            log.warning("adoption.not_a_workload", task_instance=str(ti), error=str(exc))
            yield ti, None
