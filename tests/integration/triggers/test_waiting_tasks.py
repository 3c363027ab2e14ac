"""Airflow's own scheduler and the task instances it would fail for missing heartbeats."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from airflow._shared.timezones import timezone
from airflow.configuration import conf
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

from jetbridge.bus.kv import Versioned
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.records import OnAgentLost, WorkloadRecord, WorkloadState
from jetbridge.scheduler.bridge.waiting import LATE_SHARE, LOOK_SHARE, note_heartbeats, waiting

TIMEOUT_SECONDS = conf.getint("scheduler", "task_instance_heartbeat_timeout")
LATE = timedelta(seconds=TIMEOUT_SECONDS * LATE_SHARE)


class Scheduler:
    """Airflow's scheduler as far as it looks for tasks without heartbeats."""

    def __init__(self):
        with create_session() as session:
            job = Job()
            self.runner = SchedulerJobRunner(job)
            session.add(job)
            session.flush()
            self.number = job.id

    def running(self, world, *, silent_seconds, state=TaskInstanceState.RUNNING):
        """A task instance of this scheduler's that runs and was last heard of so long ago."""
        ti_id = uuid.UUID(world.task_instance())
        with create_session() as session:
            ti = session.get(TaskInstance, ti_id)
            ti.state, ti.queued_by_job_id = state, self.number
            ti.last_heartbeat_at = timezone.utcnow() - timedelta(seconds=silent_seconds)
        return ti_id

    def would_fail(self):
        with create_session() as session:
            self.runner.job = session.get(Job, self.number)
            found = self.runner._find_task_instances_without_heartbeats(session=session)
            return {ti.id for ti in found}


@pytest.fixture
def scheduler(database):  # noqa: ARG001 - this process's Airflow uses it
    return Scheduler()


def noted(*ids):
    with create_session() as session:
        return note_heartbeats(session, ids, LATE)


def test_a_task_that_waits_is_not_failed_and_any_other_is(scheduler, world):
    waits = scheduler.running(world, silent_seconds=TIMEOUT_SECONDS + 60)
    other = scheduler.running(world, silent_seconds=TIMEOUT_SECONDS + 60)
    assert scheduler.would_fail() == {waits, other}
    assert noted(waits) == 1
    assert scheduler.would_fail() == {other}


def test_a_task_that_is_heard_keeps_its_own_heartbeats(scheduler, world):
    heard = scheduler.running(world, silent_seconds=5)
    before = world.ti(str(heard)).last_heartbeat_at
    assert noted(heard) == 0
    assert world.ti(str(heard)).last_heartbeat_at == before


def test_a_task_that_does_not_run_has_no_heartbeats(scheduler, world):
    assert noted(scheduler.running(world, silent_seconds=1000, state=TaskInstanceState.SUCCESS)) == 0


def test_a_heartbeat_is_noted_long_before_airflow_misses_it():
    assert LATE_SHARE + LOOK_SHARE < 0.5


def test_which_tasks_wait():
    def entry(**changes):
        record = {
            "workload_id": str(uuid.uuid4()),
            "kind": WorkloadKind.TASK,
            "state": WorkloadState.LEASED,
            "queue": "q",
            "coordinates": TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
            "changed_at": datetime.now(UTC),
            "on_agent_lost": OnAgentLost.WAIT,
            "lease_seconds": 600.0,
        }
        return Versioned(WorkloadRecord(**(record | changes)), 1)

    one = entry()
    others = [
        entry(lease_seconds=0.0, on_agent_lost=OnAgentLost.REROUTE),
        *(entry(state=state) for state in WorkloadState if state is not WorkloadState.LEASED),
    ]
    found = waiting((found.record.workload_id, found) for found in [one, *others])
    assert found == [uuid.UUID(one.record.workload_id)]
