"""The requests about triggers: ``rpc.triggering.*``. Plain functions of a session and a request."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from airflow.jobs.job import JobState
from sqlalchemy.orm import Session

from jetbridge.contracts import triggering
from jetbridge.contracts.messages import TaskCoordinates
from jetbridge.contracts.triggering import (
    Attach,
    Attached,
    Count,
    Counted,
    Detach,
    Detached,
    Lease,
    Leased,
    Submit,
    Submitted,
    Sync,
    Synced,
)
from jetbridge.scheduler.bridge.database import Database
from jetbridge.scheduler.bridge.errors import RefusedError
from jetbridge.scheduler.bridge.rpc import Nudge, Operation
from jetbridge.scheduler.bridge.triggers import assignment, events, jobs
from jetbridge.scheduler.bridge.triggers.upkeep import Hearing
from jetbridge.scheduler.bridge.triggers.workloads import WorkloadBuilder
from jetbridge.sealing.keyring import Sealer

STARTS_AT_ONCE = 50
"""
Triggers in one answer. An agent asks again at once, so this bounds the answer's size (a task that starts from
its trigger brings its whole Dag), not the pace. Also how many Airflow assigns in one pass.
"""


def attach(session: Session, request: Attach, lost_after: timedelta) -> Attached:
    """Open a triggerer for an agent."""
    job = jobs.begin(session, request.agent, request.instance)
    return Attached(triggerer=job.id, lost_after_seconds=lost_after.total_seconds())


def sync(session: Session, request: Sync, silence: timedelta) -> Synced:
    """Assign what waits and say what to change; raises :class:`RefusedError` when the triggerer has ended."""
    job = jobs.held_by(session, request.agent, request.triggerer)
    if request.beat:
        jobs.beat(job)
        session.flush()  # the queries below ask who is alive
    queues = set(request.queues) or None
    assignment.assign(session, job.id, request.capacity, queues, silence)
    # From here on other sessions are used, and locks would only be in the way.
    session.commit()
    wanted = assignment.wanted(session, job.id, queues)
    change = assignment.difference(session, job.id, wanted, request.running, silence)
    start = WorkloadBuilder(job.id).build(set(change.start[:STARTS_AT_ONCE])) if change.start else []
    return Synced(start=tuple(start), cancel=change.cancel, release=change.release)


def detach(session: Session, request: Detach) -> Detached:
    """End an agent's triggerer in order; repeating it is harmless."""
    with suppress(RefusedError):  # it has ended already, which is what was asked for
        jobs.end(jobs.held_by(session, request.agent, request.triggerer, lock=True), JobState.SUCCESS)
    return Detached()


def lease(session: Session, request: Lease) -> Leased:
    """Say whether an agent holds a trigger now, also under an earlier number of the same process."""
    numbers, is_open = jobs.of_process(session, request.agent, request.triggerer)
    if not is_open:
        return Leased(held=False)
    if not assignment.is_held(session, numbers, request.trigger_id):
        return Leased(held=False)
    waiting = assignment.task_instance_of(session, request.trigger_id)
    if waiting is None:
        return Leased(held=True)
    return Leased(
        held=True,
        task_instance=str(waiting.id),
        coordinates=_coordinates(waiting),
        queue=waiting.queue,
    )


def count(session: Session, request: Count) -> Counted:
    """Say how many triggers there are for triggerers of some queues."""
    assigned, waiting = assignment.count(session, set(request.queues) or None)
    return Counted(assigned=assigned, waiting=waiting)


def _coordinates(ti: assignment.Waiting) -> TaskCoordinates:
    return TaskCoordinates(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
    )


def operations(
    database: Database, hearing: Hearing, nudge: Nudge, keys: Sealer
) -> tuple[Operation[Any], ...]:
    """Return the requests about triggers, bound to a database; ``keys`` seal what is stored."""

    async def on_attach(request: Attach) -> Attached:
        hearing.heard()
        return await database.transaction(attach, request, hearing.lost_after)

    async def on_sync(request: Sync) -> Synced:
        if request.beat:
            hearing.heard()
        return await database.transaction(sync, request, hearing.silence)

    async def on_events(request: Submit) -> Submitted:
        answer = await database.transaction(events.submit, request, keys)
        await nudge()  # what waited for the event can be queued again
        return answer

    async def on_detach(request: Detach) -> Detached:
        return await database.transaction(detach, request)

    async def on_lease(request: Lease) -> Leased:
        return await database.transaction(lease, request)

    async def on_count(request: Count) -> Counted:
        return await database.transaction(count, request)

    return (
        Operation(triggering.ATTACH, Attach, on_attach),
        Operation(triggering.SYNC, Sync, on_sync),
        Operation(triggering.EVENTS, Submit, on_events),
        Operation(triggering.DETACH, Detach, on_detach),
        Operation(triggering.LEASE, Lease, on_lease),
        Operation(triggering.COUNT, Count, on_count),
    )
