"""
Dag processor agents as Airflow sees its own: a row of the ``job`` table that is alive while it is heard of.

The health that the UI and ``/monitor/health`` show is that row's ``latest_heartbeat``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow._shared.timezones import timezone
from airflow.jobs.dag_processor_job_runner import DagProcessorJobRunner
from airflow.jobs.job import Job, JobState
from sqlalchemy import select
from sqlalchemy.orm import Session

BEAT_EVERY = timedelta(seconds=5)
"""As [scheduler] job_heartbeat_sec. Agents ask each second, which would be a write each second."""

_OURS = "jetbridge"
"""``unixname`` of our rows, so that Airflow's own Dag processors, if some run as well, are left alone."""


def beat(session: Session, agent: str) -> None:
    """Note that a Dag processor agent that holds bundles was heard of just now."""
    query = select(Job).where(
        Job.job_type == DagProcessorJobRunner.job_type,
        Job.hostname == agent,
        Job.unixname == _OURS,
        Job.end_date.is_(None),
    )
    # Two requests at once may make two rows; the health looks at the newest, and one goes on being written.
    job: Job | None = session.scalar(query.order_by(Job.id).limit(1))
    now = timezone.utcnow()
    if job is None:
        job = Job(  # type: ignore[no-untyped-call]  # Airflow leaves it untyped
            job_type=DagProcessorJobRunner.job_type, state=JobState.RUNNING, hostname=agent, unixname=_OURS
        )
        session.add(job)
    elif job.latest_heartbeat is None or job.latest_heartbeat < now - BEAT_EVERY:
        job.latest_heartbeat = now
