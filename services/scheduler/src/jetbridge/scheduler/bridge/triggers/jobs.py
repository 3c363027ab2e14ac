"""
Triggerers: one row of Airflow's ``job`` table for each registration of a triggerer agent.

With such a row an agent is to Airflow what its own triggerer is: the UI shows it, its health is judged by
``latest_heartbeat``, and triggers are assigned by the row's id. Two columns that a triggerer does not use
hold what is ours: ``unixname`` says which process of the agent it is, ``executor_class`` how many of its
events were taken.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow._shared.timezones import timezone
from airflow.jobs.job import Job, JobState
from airflow.jobs.triggerer_job_runner import TriggererJobRunner
from airflow.utils.sqlalchemy import with_row_locks
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from jetbridge.contracts.rpc import RefusalCode
from jetbridge.scheduler.bridge.errors import RefusedError

_OURS = "jetbridge/"
"""Begins ``unixname`` of our rows, so that Airflow's own triggerers, if some run as well, are left alone."""

_TAKEN = "events="


def begin(session: Session, agent: str, instance: str) -> Job:
    """
    Open a triggerer for an agent. Its earlier ones end: whoever held them is gone, or asks anew.

    A repeated request opens another one. The first is never used then, and ends here or as lost. A process
    that was taken for lost and comes back goes on counting its events where it was.
    """
    for earlier in _locked(session, _open().where(Job.hostname == agent)):
        end(earlier, JobState.FAILED)
    session.flush()
    before = _locked(session, _ours().where(Job.hostname == agent, Job.unixname == f"{_OURS}{instance}"))
    job = Job(  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
        job_type=TriggererJobRunner.job_type,
        state=JobState.RUNNING,
        hostname=agent,
        unixname=f"{_OURS}{instance}",
    )
    take(job, max(map(taken, before), default=0))
    session.add(job)
    session.flush()
    return job


def end(job: Job, state: JobState) -> None:
    """End a triggerer: from now on its triggers may be assigned to others."""
    job.state = state
    job.end_date = timezone.utcnow()


def held_by(session: Session, agent: str, triggerer: int, *, lock: bool = False) -> Job:
    """
    Return an agent's triggerer.

    Raises :class:`RefusedError` (``not-found``) when it has ended or is another agent's.
    With ``lock`` nobody else changes or ends it before this transaction is over.
    """
    query = _open().where(Job.id == triggerer, Job.hostname == agent)
    job: Job | None = session.scalar(with_row_locks(query, session, of=Job) if lock else query)
    if job is None:
        raise RefusedError(
            RefusalCode.NOT_FOUND, f"Triggerer {triggerer} of agent {agent!r} has ended; attach again."
        )
    return job


def of_process(session: Session, agent: str, triggerer: int) -> tuple[set[int], bool]:
    """
    Return all numbers that the process behind one of them has had, and whether one of them is open.

    A process that was taken for lost goes on under a new number. What nobody took from it meanwhile still
    has the old one.
    """
    process = session.scalar(_ours().where(Job.id == triggerer, Job.hostname == agent))
    if process is None:
        return set(), False
    rows = session.execute(
        select(Job.id, Job.end_date).where(
            Job.job_type == TriggererJobRunner.job_type,
            Job.hostname == agent,
            Job.unixname == process.unixname,
        )
    ).all()
    return {row[0] for row in rows}, any(row[1] is None for row in rows)


def silent_since(session: Session, moment: datetime) -> list[Job]:
    """Return and lock the open triggerers of ours that were last heard of before ``moment``."""
    query = _open().where(Job.latest_heartbeat < moment)
    return list(session.scalars(with_row_locks(query, session, of=Job, skip_locked=True)))


def of_instance(session: Session, agent: str, instance: str) -> list[Job]:
    """Return and lock the open triggerers of one process of an agent."""
    return _locked(session, _open().where(Job.hostname == agent, Job.unixname == f"{_OURS}{instance}"))


def alive(silence: timedelta) -> Select[int]:
    """
    Return the query for all triggerers, Airflow's own included, that keep what they have.

    As ``Trigger.assign_unassigned`` of Airflow 3.3 has it.
    """
    return select(Job.id).where(
        Job.job_type == TriggererJobRunner.job_type,
        Job.end_date.is_(None),
        Job.latest_heartbeat > timezone.utcnow() - silence,
    )


def beat(job: Job) -> None:
    """Note that the agent was heard of just now."""
    job.latest_heartbeat = timezone.utcnow()


def taken(job: Job) -> int:
    """Return the sequence of the last event taken from this triggerer; 0 before the first."""
    return int((job.executor_class or "").removeprefix(_TAKEN) or 0)


def take(job: Job, sequence: int) -> None:
    """Note the sequence of the last event taken, in the transaction that has the event's effects."""
    job.executor_class = f"{_TAKEN}{sequence}"


def _ours() -> Select[Job]:
    return select(Job).where(Job.job_type == TriggererJobRunner.job_type, Job.unixname.startswith(_OURS))


def _open() -> Select[Job]:
    return _ours().where(Job.end_date.is_(None))


def _locked(session: Session, query: Select[Job]) -> list[Job]:
    return list(session.scalars(with_row_locks(query, session, of=Job)))
