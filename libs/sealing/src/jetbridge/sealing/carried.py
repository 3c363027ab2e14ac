"""
What a deferred task hands over to its trigger and to its own second half, sealed and opened.

Four things travel: the trigger's arguments, the payload of its event, its traceback when it fails, and the
arguments of the method with which the task goes on. Each is bound to the task, by Dag, run, task and map
index: not to the task instance's id, which changes when a lost agent's work is run again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from jetbridge.contracts.masking import SEALED, is_sealed
from jetbridge.sealing.keyring import Sealer, SealingError

EVENT = "event"
TRACEBACK = "traceback"
_ENVELOPE = re.compile(r"jb1\.[0-9a-f]{12}\.[A-Za-z0-9_=-]+")
_TRACEBACK_BYTES = 256 << 10
"""The end is kept: it has the error. Sealed it takes fewer lines than the contract allows."""

_LINE_CHARS = 4000
"""Below the limit of a traceback's line in the contract."""


class Carried(StrEnum):
    """What an envelope holds."""

    TRIGGER_ARGUMENTS = "trigger-arguments"
    NEXT_ARGUMENTS = "next-arguments"
    EVENT = "event"
    TRACEBACK = "traceback"


class Task(NamedTuple):
    """The task that something is carried over for."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def purpose(self, what: Carried) -> str:
        """Return what an envelope is bound to."""
        return json.dumps([what.value, *self])


class _TaskOfTrigger(msgspec.Struct):
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    queue: str = ""


class _Spec(msgspec.Struct):
    ti: _TaskOfTrigger | None = None


_specs = msgspec.json.Decoder(_Spec)


def task_of_trigger(spec: bytes) -> Task | None:
    """Return the task that waits for a trigger, from Airflow's workload as JSON; None when none does."""
    ti = _specs.decode(spec).ti
    return Task(ti.dag_id, ti.run_id, ti.task_id, ti.map_index) if ti else None


def queue_of_trigger(spec: bytes) -> str:
    """Return the queue of the task that waits for a trigger; empty when none does."""
    ti = _specs.decode(spec).ti
    return ti.queue if ti else ""


def seal(keys: Sealer, task: Task, what: Carried, value: Any) -> dict[str, str]:
    """Return a JSON value as a sealed document."""
    return keys.seal_document(value, task.purpose(what))


def open_(keys: Sealer, task: Task, what: Carried, document: Any) -> Any:
    """Return what was sealed; what was not comes back as it is. Raises :class:`SealingError`."""
    return keys.open_document(document, task.purpose(what)) if is_sealed(document) else document


def seal_traceback(keys: Sealer, task: Task, lines: Sequence[str]) -> list[str]:
    """Return a traceback as an envelope, in lines."""
    data = "".join(lines).encode(errors="backslashreplace")[-_TRACEBACK_BYTES:]
    envelope = keys.seal(data, task.purpose(Carried.TRACEBACK))
    return [envelope[start : start + _LINE_CHARS] for start in range(0, len(envelope), _LINE_CHARS)]


def is_sealed_traceback(lines: Sequence[str]) -> bool:
    """Say whether a traceback is an envelope and nothing else."""
    return bool(lines) and _ENVELOPE.fullmatch("".join(lines)) is not None


def open_traceback(keys: Sealer, task: Task, lines: Sequence[str]) -> list[str]:
    """Return a traceback's lines; what is not sealed comes back as it is. Raises :class:`SealingError`."""
    if not is_sealed_traceback(lines):
        return list(lines)
    return [keys.open("".join(lines), task.purpose(Carried.TRACEBACK)).decode(errors="replace")]


def open_next(keys: Sealer, task: Task, next_kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    Return the arguments of a task's next method as the task sealed them, with the event that was added.

    Airflow adds the event beside what it cannot read. Envelopes that are another keyring's are left as they
    are: the plane opens its own and passes on the site's. Raises :class:`SealingError`.
    """
    opened = dict(next_kwargs)
    if isinstance(envelope := opened.get(SEALED), str) and keys.opens(envelope):
        del opened[SEALED]
        carried = keys.open_document({SEALED: envelope}, task.purpose(Carried.NEXT_ARGUMENTS))
        if not isinstance(carried, dict):
            raise SealingError("the arguments of the next method are no document")
        opened = {**carried, **opened}
    event = opened.get(EVENT)
    if isinstance(event, dict) and is_sealed(event) and keys.opens(event[SEALED]):
        opened[EVENT] = open_(keys, task, Carried.EVENT, event)
    lines = opened.get(TRACEBACK)
    if isinstance(lines, list) and is_sealed_traceback(lines) and keys.opens(lines[0]):
        opened[TRACEBACK] = open_traceback(keys, task, lines)
    return opened
