"""
What may be in the body of a request to Airflow's Execution API: looked at, masked, sealed or refused. Pure.

Only the operations in ``SCREENS`` and ``GATES`` carry anything that is not always let through; the bodies of
all others go on unread. A body that was looked at goes on as it was understood here, so that two readers of
the same bytes (a name that comes twice) can never see two things.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jetbridge.contracts.boundary import DataClass, Decision, advice_for
from jetbridge.contracts.masking import (
    MASK,
    WITHHELD_TEXT,
    is_sealed,
    masked_outlet_events,
    masked_values,
)
from jetbridge.sealing import carried
from jetbridge.sealing.carried import Carried, Task
from jetbridge.sealing.keyring import Keyring

_TI = "/execution/task-instances/{task_instance_id}"
START = f"PATCH {_TI}/run"
"""Its answer may hold what this plane sealed."""

STATE = f"PATCH {_TI}/state"
"""How a task says how it ended, or that it waits for a trigger."""

_LINK_KEY = "_link_"
_LINK = re.compile(r"https?://[\x21-\x7e]{1,2000}")
_XCOM_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[A-Za-z0-9._~%=/-]{1,1024}")
_STATE_URI = _XCOM_URI
_STATE_MARKER = "__airflow_state_ref__"
"""What Airflow's task SDK wraps references of a state store backend in (3.3)."""

_HASH = re.compile(r"[0-9a-f]{64}")
_ENCODINGS = ("identity", "gzip")


class Outcome(StrEnum):
    """What became of some data."""

    CROSSED = "crossed"
    MASKED = "masked"
    SEALED = "sealed"
    REFUSED = "refused"


class RefusedError(Exception):
    """Data of a closed class where nothing can be put in its place."""

    def __init__(self, data: DataClass, what: str) -> None:
        self.data = data
        super().__init__(f"{what} ({data}). {advice_for(data)}")


class BodyError(Exception):
    """The body is not what Airflow's operation takes."""


@dataclass(kw_only=True)
class Look:
    """One request as it is screened, and what was found in it."""

    decision: Decision
    task: Task | None
    named: Mapping[str, str]
    at_rest: Keyring
    reference_prefixes: tuple[str, ...] = ()
    found: list[tuple[DataClass, Outcome, int]] = field(default_factory=list)

    def note(self, data: DataClass, outcome: Outcome, value: Any) -> None:
        """Remember what was found; the size is that of its JSON, in bytes."""
        self.found.append((data, outcome, len(json.dumps(value))))

    def is_open(self, data: DataClass) -> bool:
        """Say whether a class is open here."""
        return self.decision.is_open(data)


Screen = Callable[[Any, Look], Any]


def gate(operation: str, decision: Decision) -> DataClass | None:
    """Return the class for which an operation is refused before anything is read; None lets it in."""
    data = GATES.get(operation)
    return None if data is None or decision.is_open(data) else data


def screened(operation: str, body: bytes, look: Look) -> bytes:
    """
    Return the body to pass on. Raises :class:`RefusedError` or :class:`BodyError`.

    An empty body is passed on: Airflow will say what it thinks of it.
    """
    if not body:
        return body
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BodyError("the body is no JSON") from exc
    return json.dumps(SCREENS[operation](value, look), separators=(",", ":")).encode()


def _rendered_fields(body: Any, look: Look) -> Any:
    return _masked(_document(body), look, DataClass.RENDERED_FIELDS, masked_values)


def _rendered_map_index(body: Any, look: Look) -> Any:
    if not isinstance(body, str):
        raise BodyError("the body is no text")
    return _masked(body, look, DataClass.RENDERED_FIELDS, lambda _: MASK)


def _state(body: Any, look: Look) -> Any:
    state = dict(_document(body))
    for name, data, mask in _STATE_FIELDS:
        if state.get(name):
            state[name] = _masked(state[name], look, data, mask)
    for name, what in _CARRIED.items():
        if state.get(name):
            state[name] = _carried(state[name], what, look)
    return state


def _outlet_events(events: Any) -> Any:
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise BodyError("outlet_events is no list of events")
    return masked_outlet_events(events)


_STATE_FIELDS: tuple[tuple[str, DataClass, Callable[[Any], Any]], ...] = (
    ("rendered_map_index", DataClass.RENDERED_FIELDS, lambda _: MASK),
    ("retry_reason", DataClass.EXCEPTION_TEXT, lambda _: WITHHELD_TEXT),
    ("outlet_events", DataClass.ASSET_EVENT_EXTRA, _outlet_events),
)
_CARRIED = {"trigger_kwargs": Carried.TRIGGER_ARGUMENTS, "next_kwargs": Carried.NEXT_ARGUMENTS}


def _carried(value: Any, what: Carried, look: Look) -> Any:
    """Seal what the agent left open, for the time it is stored."""
    if is_sealed(value):
        look.note(DataClass.TRIGGER_DATA, Outcome.SEALED, value)
        return value
    if look.is_open(DataClass.TRIGGER_DATA) or look.task is None:
        look.note(DataClass.TRIGGER_DATA, Outcome.CROSSED, value)
        return value
    look.note(DataClass.TRIGGER_DATA, Outcome.MASKED, value)
    return carried.seal(look.at_rest, look.task, what, value)


def _xcom(body: Any, look: Look) -> Any:
    if _is_xcom_reference(body, look.reference_prefixes):
        look.note(DataClass.REFERENCES, Outcome.CROSSED, body)
        return body
    if look.named.get("key", "").startswith(_LINK_KEY) and isinstance(body, str):
        return _link(body, look)
    return _let_through(body, look, DataClass.XCOM_VALUES, "An XCom's value is not stored on this plane")


def _link(body: str, look: Look) -> str:
    if not body:
        return body
    _let_through(body, look, DataClass.OPERATOR_LINKS, "An operator's link is not stored on this plane")
    if not _LINK.fullmatch(body):
        raise RefusedError(DataClass.XCOM_VALUES, "An operator's link is an http(s) address")
    return body


def _is_xcom_reference(value: Any, prefixes: tuple[str, ...]) -> bool:
    """Say whether a value is one of ours, field by field, or a path of another store that is configured."""
    if isinstance(value, str):
        return bool(prefixes) and value.startswith(prefixes) and len(value) <= 2048 and value.isprintable()
    if not isinstance(value, dict):
        return False
    return (
        value.keys() <= {"jetbridge.xcom", "uri", "bytes", "sha256", "encoding"}
        and value.get("jetbridge.xcom") == 1
        and _matches(_XCOM_URI, value.get("uri"))
        and type(value.get("bytes")) is int
        and 0 <= value["bytes"] < 1 << 63
        and _matches(_HASH, value.get("sha256"))
        and value.get("encoding", "identity") in _ENCODINGS
    )


def _state_store(body: Any, look: Look) -> Any:
    value = _document(body).get("value")
    if _is_state_reference(value):
        look.note(DataClass.REFERENCES, Outcome.CROSSED, value)
        return body
    _let_through(value, look, DataClass.STATE_STORE_VALUES, "A state store's value stays off this plane")
    return body


def _is_state_reference(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {_STATE_MARKER}
        and _matches(_STATE_URI, value[_STATE_MARKER])
    )


def _dag_run(body: Any, look: Look) -> Any:
    run = _document(body)
    said = {name: run[name] for name in ("conf", "note") if run.get(name)}
    if said:
        _let_through(said, look, DataClass.RUN_CONF, "A run is not triggered with conf or note here")
    return body


def _let_through(value: Any, look: Look, data: DataClass, what: str) -> Any:
    if not look.is_open(data):
        raise RefusedError(data, what)
    look.note(data, Outcome.CROSSED, value)
    return value


def _masked(value: Any, look: Look, data: DataClass, mask: Callable[[Any], Any]) -> Any:
    if look.is_open(data):
        look.note(data, Outcome.CROSSED, value)
        return value
    masked = mask(value)
    # What an honest agent masked is the same again: nothing of this class was sent.
    if masked != value:
        look.note(data, Outcome.MASKED, value)
    return masked


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _document(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BodyError("the body is no document")
    return value


SCREENS: dict[str, Screen] = {
    STATE: _state,
    f"PUT {_TI}/rtif": _rendered_fields,
    f"PATCH {_TI}/rendered-map-index": _rendered_map_index,
    "POST /execution/xcoms/{dag_id}/{run_id}/{task_id}/{key}": _xcom,
    "PUT /execution/store/ti/{task_instance_id}/{key}": _state_store,
    "PUT /execution/store/asset/by-name/value": _state_store,
    "PUT /execution/store/asset/by-uri/value": _state_store,
    "POST /execution/dag-runs/{dag_id}/{run_id}": _dag_run,
}
"""Operations with data of a class that can be closed in their bodies."""

GATES: dict[str, DataClass] = {
    "GET /execution/connections/{connection_id}": DataClass.CONNECTIONS,
    "GET /execution/variables/keys": DataClass.VARIABLES,
    "GET /execution/variables/{variable_key}": DataClass.VARIABLES,
    "PUT /execution/variables/{variable_key}": DataClass.VARIABLES,
    "DELETE /execution/variables/{variable_key}": DataClass.VARIABLES,
    "GET /execution/connection-tests/{connection_test_id}/connection": DataClass.CONNECTION_TESTS,
    "PATCH /execution/connection-tests/{connection_test_id}": DataClass.CONNECTION_TESTS,
    "POST /execution/hitlDetails/{task_instance_id}": DataClass.HUMAN_INPUT,
    "PATCH /execution/hitlDetails/{task_instance_id}": DataClass.HUMAN_INPUT,
    "GET /execution/hitlDetails/{task_instance_id}": DataClass.HUMAN_INPUT,
}
"""Operations that exist for one class alone."""
