"""
What became of triggers, taken once.

Everything of one request happens in one transaction, with the triggerer's row locked and the sequence of its
last event written there. A request that comes again, at the same moment through another bridge or long after
the answer was lost, finds the sequence and does nothing. A triggerer that has ended finds no row.

Airflow's own triggerer goes down with an event that cannot be submitted, and gets it again when it is back.
Here it is undone and set aside alone, and what waits for the trigger fails with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from traceback import format_exception
from typing import Any

import msgspec
import structlog
from airflow.models.trigger import Trigger
from airflow.sdk.serde import serialize
from airflow.triggers.base import BaseTaskEndEvent, DiscrimatedTriggerEvent
from airflow.triggers.base import TriggerEvent as AirflowEvent
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from jetbridge.contracts.masking import is_sealed
from jetbridge.contracts.rpc import RefusalCode
from jetbridge.contracts.triggering import SetAside, Submit, Submitted, TriggerEvent
from jetbridge.scheduler.bridge.errors import RefusedError, is_outage
from jetbridge.scheduler.bridge.triggers import jobs
from jetbridge.scheduler.bridge.triggers.assignment import task_instance_of
from jetbridge.sealing import carried
from jetbridge.sealing.carried import Carried, Task
from jetbridge.sealing.keyring import Sealer

log = structlog.get_logger(__name__)

NOT_HELD = "another triggerer holds this trigger"
GONE = "nobody waits for this trigger any more"

_events: TypeAdapter[Any] = TypeAdapter(DiscrimatedTriggerEvent)
_decoder = msgspec.msgpack.Decoder()


def submit(session: Session, request: Submit, keys: Sealer | None = None) -> Submitted:
    """
    Take a request's events.

    With ``keys``, payloads that their site did not seal are sealed for the time they are stored; the gateway
    opens them for the worker that goes on with the task.

    Raises :class:`RefusedError`: ``not-found`` when the triggerer has ended, ``malformed`` when an event is
    none, ``conflict`` when the triggerer holds none of the triggers. Nothing is changed then.
    """
    job = jobs.held_by(session, request.agent, request.triggerer, lock=True)
    before = jobs.taken(job)
    new = [(event, decoded(event)) for event in request.events if event.sequence > before]
    if keys is not None:
        new = [(event, at_rest(session, keys, event.trigger_id, what)) for event, what in new]
    if not new:
        return Submitted(taken=before)
    ours, _ = jobs.of_process(session, request.agent, job.id)
    holders = _holders(session, {event.trigger_id for event, _ in new})
    if all(holders.get(event.trigger_id, job.id) not in ours for event, _ in new):
        raise RefusedError(RefusalCode.CONFLICT, f"Triggerer {job.id} holds none of these triggers.")
    set_aside = [aside for event, what in new if (aside := _take(session, ours, holders, event, what))]
    jobs.take(job, new[-1][0].sequence)
    return Submitted(taken=new[-1][0].sequence, set_aside=tuple(set_aside))


def decoded(event: TriggerEvent) -> AirflowEvent | None:
    """Return Airflow's event, or None for a failure; raises :class:`RefusedError` when it is neither."""
    if (event.event is None) == (event.traceback is None):
        raise _malformed(event, "it must have either an event or a traceback")
    if event.event is None:
        return None
    try:
        what: AirflowEvent = _events.validate_python(_decoder.decode(event.event))
    except (msgspec.DecodeError, ValidationError, UnicodeDecodeError, RecursionError) as exc:
        raise _malformed(event, f"it is no trigger event of Airflow's: {type(exc).__name__}") from exc
    if isinstance(what, BaseTaskEndEvent) and what.xcoms:
        raise _malformed(event, "it carries XCom values, which agents store themselves")
    return what


def at_rest(
    session: Session, keys: Sealer, trigger_id: int, what: AirflowEvent | None
) -> AirflowEvent | None:
    """
    Return an event as it is stored.

    Events of assets and callbacks are for the plane to read, and one that ends its task carries nothing else.
    What Airflow's serialization does not take is left to Airflow, which fails the task and says why.
    """
    if what is None or isinstance(what, BaseTaskEndEvent) or is_sealed(what.payload):
        return what
    waiting = task_instance_of(session, trigger_id)
    if waiting is None:
        return what
    task = Task(waiting.dag_id, waiting.run_id, waiting.task_id, waiting.map_index)
    try:
        sealed = carried.seal(keys, task, Carried.EVENT, serialize(what.payload))
    except (TypeError, AttributeError, RecursionError, ValueError):
        return what
    return what.model_copy(update={"payload": sealed})


def _take(
    session: Session,
    ours: set[int],
    holders: dict[int, int | None],
    event: TriggerEvent,
    what: AirflowEvent | None,
) -> SetAside | None:
    bound = log.bind(trigger_id=event.trigger_id, sequence=event.sequence)
    if event.trigger_id not in holders:
        # The task was cleared or the trigger's event came from somebody else: no mistake of the agent's.
        return SetAside(sequence=event.sequence, reason=GONE)
    if holders[event.trigger_id] not in ours:
        bound.warning("event refused", reason=NOT_HELD, holder=holders[event.trigger_id])
        return SetAside(sequence=event.sequence, reason=NOT_HELD)
    try:
        with session.begin_nested():
            _submit(session, event, what)
    except Exception as exc:
        if is_outage(exc):
            raise
        bound.exception("event cannot be submitted; what waits for the trigger fails")
        with session.begin_nested():
            _fail(session, event.trigger_id, format_exception(exc))
        return SetAside(sequence=event.sequence, reason=f"Airflow could not submit it: {type(exc).__name__}")
    bound.info("event taken", failure=what is None)
    return None


def _submit(session: Session, event: TriggerEvent, what: AirflowEvent | None) -> None:
    if what is None:
        _fail(session, event.trigger_id, event.traceback or ())
    else:
        Trigger.submit_event(event.trigger_id, what, session=session)


def _fail(session: Session, trigger_id: int, traceback: Iterable[str]) -> None:
    # PostgreSQL stores no NUL.
    lines = [line.replace("\x00", "\\x00") for line in traceback]
    Trigger.submit_failure(trigger_id, lines or None, session=session)


def _holders(session: Session, trigger_ids: set[int]) -> dict[int, int | None]:
    query = select(Trigger.id, Trigger.triggerer_id).where(Trigger.id.in_(trigger_ids))
    return {row[0]: row[1] for row in session.execute(query)}


def _malformed(event: TriggerEvent, why: str) -> RefusedError:
    return RefusedError(
        RefusalCode.MALFORMED, f"Event {event.sequence} of trigger {event.trigger_id} cannot be used: {why}."
    )
