"""Deferred task instances straight in Airflow's metadata database, for the benchmark of triggers."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import pendulum
from airflow import settings
from airflow.configuration import conf
from airflow.jobs.job import Job
from airflow.models.crypto import get_fernet
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import func, select

from jetbridge.devstack.stack import DevStack


class Database:
    """Airflow's metadata database: deferred task instances in, times out."""

    def __init__(self, stack: DevStack) -> None:
        """Have the Airflow of this process use the stack's database."""

        self._notes: dict[Any, Path] = {}
        conf.set("database", "sql_alchemy_conn", stack.database_url)
        conf.set("core", "fernet_key", stack.secrets.fernet_key)
        get_fernet.cache_clear()
        settings.dispose_orm(do_log=False)
        settings.configure_vars()
        settings.configure_orm()

    def defer(self, triggers: list[Any]) -> tuple[list[Any], float]:
        """Defer a task instance to each trigger; return their ids and the time of the commit."""

        ids = []
        with create_session() as session:
            dag = SerializedDagModel.get_dag("waiting", session=session)
            for trigger in triggers:
                row = Trigger.from_object(trigger)
                session.add(row)
                session.flush()
                run = dag.create_dagrun(
                    run_id=secrets.token_hex(8),
                    logical_date=None,
                    run_after=pendulum.now("UTC"),
                    run_type=DagRunType.MANUAL,
                    triggered_by=DagRunTriggeredByType.TEST,
                    state="running",
                    session=session,
                )
                ti = run.get_task_instances(session=session)[0]
                ti.state, ti.trigger_id, ti.try_number, ti.next_method = (
                    "deferred",
                    row.id,
                    1,
                    "execute_complete",
                )
                ids.append(ti.id)
                if note := getattr(trigger, "note", ""):
                    self._notes[ti.id] = Path(note)
        return ids, time.time()

    def fired_at(self, instance: Any) -> float:
        """Return when a task instance's trigger fired, by its own word."""

        note = self._notes.pop(instance.id)
        try:
            return float(note.read_text())
        finally:
            note.unlink()

    def instances(self, ids: list[Any]) -> list[Any]:
        """Return task instances."""

        with create_session() as session:
            return list(session.scalars(select(TaskInstance).where(TaskInstance.id.in_(ids))))

    def held(self) -> dict[int, int]:
        """Return how many triggers each open triggerer holds."""

        query = select(Trigger.triggerer_id, func.count()).join(Job, Job.id == Trigger.triggerer_id)
        with create_session() as session:
            rows = session.execute(query.where(Job.end_date.is_(None)).group_by(Trigger.triggerer_id))
            return {row[0]: row[1] for row in rows}

    def job(self, hostname: str) -> Any:
        """Return the latest triggerer of an agent."""

        with create_session() as session:
            return session.scalar(
                select(Job).where(Job.hostname == hostname).order_by(Job.id.desc()).limit(1)
            )


def far_away(number: int) -> list[Any]:
    """Return triggers that wait, of Airflow's standard provider."""

    return [DateTimeTrigger(moment=pendulum.now("UTC").add(hours=1)) for _ in range(number)]
