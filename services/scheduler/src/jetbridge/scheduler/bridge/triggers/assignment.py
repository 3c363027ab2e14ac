"""
Which triggers an agent runs.

``Trigger.assign_unassigned`` of Airflow 3.3 takes callbacks away from triggerers that are alive, each second
(apache/airflow#72848), which runs them twice. So its parts are used here: ``get_sorted_triggers`` chooses and
locks, and what somebody alive holds is left out of the choice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from airflow.models.callback import Callback
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.state import TaskInstanceState
from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from jetbridge.scheduler.bridge.triggers import jobs


@dataclass(frozen=True)
class Difference:
    """What is to change on an agent."""

    start: tuple[int, ...]
    cancel: tuple[int, ...] = ()
    release: tuple[int, ...] = ()


def assign(
    session: Session, triggerer: int, capacity: int, queues: set[str] | None, silence: timedelta
) -> None:
    """
    Give the triggerer what waits for one, up to its capacity.

    Triggerers not heard of for ``silence``, and those that have ended, hold nothing.
    """
    room = capacity - _count(session, Trigger.triggerer_id == triggerer)
    if room <= 0:
        return
    free = _free(silence)
    # The choice begins with all callbacks, those that run included. Asking for as many more keeps them from
    # filling the room.
    occupied = _count(session, Trigger.callback.has(), ~free)
    chosen = Trigger.get_sorted_triggers(
        capacity=room + occupied, alive_triggerer_ids=jobs.alive(silence), queues=queues, session=session
    )
    ids = [row[0] for row in chosen]
    taken = set(session.scalars(select(Trigger.id).where(Trigger.id.in_(ids), free)))
    ours = [trigger_id for trigger_id in ids if trigger_id in taken][:room]
    if ours:
        session.execute(
            update(Trigger)
            .where(Trigger.id.in_(ours))
            .values(triggerer_id=triggerer)
            .execution_options(synchronize_session=False)
        )


def wanted(session: Session, triggerer: int, queues: set[str] | None) -> set[int]:
    """Return the triggers assigned to a triggerer."""
    return set(Trigger.ids_for_triggerer(triggerer, queues=queues, session=session))


def count(session: Session, queues: set[str] | None) -> tuple[int, int]:
    """Return how many needed triggers of the queues have a triggerer, and how many have none."""
    theirs = Trigger.queue.in_(queues) if queues else Trigger.queue.is_(None)
    assigned = _count(session, theirs, _is_needed(), Trigger.triggerer_id.is_not(None))
    return assigned, _count(session, theirs, _is_needed(), Trigger.triggerer_id.is_(None))


def difference(
    session: Session, triggerer: int, wanted: set[int], running: Collection[int], silence: timedelta
) -> Difference:
    """
    Compare what an agent runs with what it should.

    A running trigger that is assigned to nobody alive is left alone: until somebody takes it, its best place
    is where it runs.
    """
    start = tuple(sorted(wanted - set(running)))
    unwanted = set(running) - wanted
    if not unwanted:
        return Difference(start)
    in_use = set(session.scalars(select(Trigger.id).where(Trigger.id.in_(unwanted), _is_needed())))
    elsewhere = set(
        session.scalars(
            select(Trigger.id).where(
                Trigger.id.in_(in_use), ~_free(silence), Trigger.triggerer_id != triggerer
            )
        )
    )
    return Difference(start, cancel=tuple(sorted(unwanted - in_use)), release=tuple(sorted(elsewhere)))


class Waiting(NamedTuple):
    """The task instance that waits for a trigger."""

    id: UUID
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    queue: str


def is_held(session: Session, triggerers: set[int], trigger_id: int) -> bool:
    """Say whether one of the triggerers holds a trigger that is needed."""
    held = session.scalar(
        select(Trigger.id).where(Trigger.id == trigger_id, Trigger.triggerer_id.in_(triggerers), _is_needed())
    )
    return held is not None


def task_instance_of(session: Session, trigger_id: int) -> Waiting | None:
    """Return the task instance that waits for a trigger; None for that of an asset or a callback."""
    columns = [getattr(TaskInstance, name) for name in Waiting._fields]
    found = session.execute(select(*columns).where(*_waits(trigger_id)).limit(1)).one_or_none()
    return Waiting(*found) if found else None


def _waits(trigger_id: int) -> tuple[ColumnElement[bool], ...]:
    return TaskInstance.trigger_id == trigger_id, TaskInstance.state == TaskInstanceState.DEFERRED


def _free(silence: timedelta) -> ColumnElement[bool]:
    return or_(Trigger.triggerer_id.is_(None), Trigger.triggerer_id.not_in(jobs.alive(silence)))


def _is_needed() -> ColumnElement[bool]:
    """Somebody waits for the trigger: the opposite of what ``Trigger.clean_unused`` deletes."""
    deferred = (
        select(TaskInstance.id)
        .where(TaskInstance.trigger_id == Trigger.id, TaskInstance.state == TaskInstanceState.DEFERRED)
        .exists()
    )
    callback = select(Callback.id).where(Callback.trigger_id == Trigger.id).exists()
    return or_(deferred, callback, Trigger.assets.any())


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count(Trigger.id)).where(*conditions)) or 0
