"""
What a triggerer seals with its site's key and opens with it. For Airflow 3.3.

Without a key, payloads of events and arguments travel over TLS in the clear and the plane seals them for the
time it stores them; texts of exceptions are masked, unless a policy opens them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.sdk.serde import serialize
from airflow.triggers.base import BaseTaskEndEvent

from jetbridge.contracts.boundary import DataClass, decision_of
from jetbridge.contracts.masking import SEALED, is_sealed, masked_traceback
from jetbridge.contracts.triggering import TriggerStart
from jetbridge.sealing import carried
from jetbridge.sealing.carried import Carried, Task
from jetbridge.sealing.keyring import Sealer, SealingError


def opened_arguments(keys: Sealer | None, start: TriggerStart) -> str:
    """Return a trigger's arguments as JSON text; raises :class:`SealingError`, which says what to do."""
    if SEALED not in start.arguments:
        return start.arguments
    document, task = json.loads(start.arguments), carried.task_of_trigger(start.spec)
    if not is_sealed(document) or task is None:
        return start.arguments
    if keys is None:
        raise SealingError(
            "the trigger's arguments were sealed with a site's key and this triggerer has none. Give all "
            "agents of a site the same JETBRIDGE_AGENT_SITE_KEY_FILE"
        )
    arguments = carried.open_(keys, task, Carried.TRIGGER_ARGUMENTS, document)
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def event_fields(keys: Sealer | None, ti: TaskInstanceDTO | None, event: Any) -> dict[str, Any]:
    """
    Return an event as it is sent, with its payload sealed when a task of this site waits for it.

    Events of assets and callbacks are for the plane to act on. One that ends its task says only how.
    """
    fields: dict[str, Any] = event.model_dump()
    if keys is None or ti is None or isinstance(event, BaseTaskEndEvent):
        return fields
    # In the form in which Airflow would have stored it, so that the worker can hand it on as it is.
    payload = serialize(event.payload)
    return fields | {"payload": carried.seal(keys, task_of(ti), Carried.EVENT, payload)}


def failure_lines(
    keys: Sealer | None, ti: TaskInstanceDTO | None, opened: tuple[str, ...], lines: Sequence[str] | None
) -> list[str] | None:
    """Return a failed trigger's traceback as it is sent: sealed, or without its texts, or as it is."""
    if not lines:
        return None
    if keys is not None and ti is not None:
        return carried.seal_traceback(keys, task_of(ti), lines)
    if decision_of(opened).is_open(DataClass.EXCEPTION_TEXT):
        return list(lines)
    return [masked_traceback("".join(lines))]


def task_of(ti: TaskInstanceDTO) -> Task:
    """Return whose envelopes these are."""
    return Task(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
