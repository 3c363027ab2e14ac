"""
What becomes of each call of Airflow's Execution API while the plane is away, for tasks under ``wait``.

One row per operation of Airflow 3.3's Execution API; ``tests/unit/airflows_api`` fails when
Airflow has one that is not here. What is not here waits: a *yes* is only given where it is known to be
harmless.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto


class Rule(Enum):
    """What a supervisor does with a call that the plane cannot take now."""

    ANSWERED = auto()
    """Answered here and forgotten: it says nothing that is still true later."""
    KEPT = auto()
    """Put into the outbox, answered here, delivered later in order. Doing it twice changes nothing more."""
    WAITS = auto()
    """Tried until the plane answers or the lease is over: only the plane knows the answer."""


@dataclass(frozen=True)
class Row:
    """One operation. ``status`` is what Airflow answers when it worked; ``why`` is for readers."""

    method: str
    path: str
    rule: Rule
    why: str
    status: int = 204
    is_last: bool = False


_TI = "task-instances/{task_instance_id}"
_XCOM = "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}"
_TI_STORE = "store/ti/{task_instance_id}"

_OWN = "of this attempt; nobody else writes it"
_READ = "an answer only the plane has"
_SHARED = "others write it as well: what is late would overwrite what is newer"

RULES: tuple[Row, ...] = (
    Row("PUT", f"{_TI}/heartbeat", Rule.ANSWERED, "the lease stands in for it"),
    Row("PATCH", f"{_TI}/run", Rule.WAITS, "the plane says whether the task may run, and its context"),
    Row("PATCH", f"{_TI}/state", Rule.KEPT, "the task is at its end; fenced by the lease", is_last=True),
    Row("PATCH", f"{_TI}/skip-downstream", Rule.KEPT, "skipping twice is skipping"),
    Row("PUT", f"{_TI}/rtif", Rule.KEPT, _OWN, status=201),
    Row("PATCH", f"{_TI}/rendered-map-index", Rule.KEPT, _OWN),
    Row("GET", f"{_TI}/previous-successful-dagrun", Rule.WAITS, _READ),
    Row("GET", f"{_TI}/validate-inlets-and-outlets", Rule.WAITS, _READ),
    Row("GET", "task-instances/count", Rule.WAITS, _READ),
    Row("GET", "task-instances/previous/{dag_id}/{task_id}", Rule.WAITS, _READ),
    Row("GET", "task-instances/states", Rule.WAITS, _READ),
    Row("GET", "task-instances/breadcrumbs", Rule.WAITS, _READ),
    Row("GET", "task-reschedules/{task_instance_id}/start_date", Rule.WAITS, _READ),
    Row("GET", f"{_XCOM}/item/{{offset}}", Rule.WAITS, _READ),
    Row("GET", f"{_XCOM}/slice", Rule.WAITS, _READ),
    Row("HEAD", _XCOM, Rule.WAITS, _READ),
    Row("GET", _XCOM, Rule.WAITS, "another task's, or this one's after all before it in the outbox"),
    Row("POST", _XCOM, Rule.KEPT, "replaces what this attempt had set under the key", status=201),
    Row("DELETE", _XCOM, Rule.KEPT, "gone is gone", status=200),
    Row("GET", f"{_TI_STORE}/{{key:path}}", Rule.WAITS, _READ),
    Row("PUT", f"{_TI_STORE}/{{key:path}}", Rule.KEPT, _OWN),
    Row("DELETE", f"{_TI_STORE}/{{key:path}}", Rule.KEPT, _OWN),
    Row("DELETE", _TI_STORE, Rule.KEPT, _OWN),
    Row("GET", "connections/{connection_id}", Rule.WAITS, _READ),
    Row("GET", "variables/keys", Rule.WAITS, _READ),
    Row("GET", "variables/{variable_key:path}", Rule.WAITS, _READ),
    Row("PUT", "variables/{variable_key:path}", Rule.WAITS, _SHARED),
    Row("DELETE", "variables/{variable_key:path}", Rule.WAITS, _SHARED),
    Row("GET", "dag-runs/{dag_id}/previous", Rule.WAITS, _READ),
    Row("GET", "dag-runs/count", Rule.WAITS, _READ),
    Row("GET", "dag-runs/previous", Rule.WAITS, _READ),
    Row("GET", "dag-runs/{dag_id}/{run_id}/state", Rule.WAITS, _READ),
    Row("GET", "dag-runs/{dag_id}/{run_id}", Rule.WAITS, _READ),
    Row("POST", "dag-runs/{dag_id}/{run_id}/clear", Rule.WAITS, "clears whatever runs by then"),
    Row("POST", "dag-runs/{dag_id}/{run_id}", Rule.WAITS, "the answer says whether there was one already"),
    Row("GET", "dags/{dag_id}", Rule.WAITS, _READ),
    Row("GET", "assets/by-name", Rule.WAITS, _READ),
    Row("GET", "assets/by-uri", Rule.WAITS, _READ),
    Row("GET", "assets/by-alias", Rule.WAITS, _READ),
    Row("GET", "asset-events/by-asset", Rule.WAITS, _READ),
    Row("GET", "asset-events/by-asset-alias", Rule.WAITS, _READ),
    Row("POST", "hitlDetails/{task_instance_id}", Rule.WAITS, "the answer is what was made"),
    Row("PATCH", "hitlDetails/{task_instance_id}", Rule.WAITS, _SHARED),
    Row("GET", "hitlDetails/{task_instance_id}", Rule.WAITS, _READ),
    *(
        Row(method, f"store/asset/by-{by}/{what}", Rule.WAITS, _READ if method == "GET" else _SHARED)
        for by in ("name", "uri")
        for method, what in (("GET", "value"), ("PUT", "value"), ("DELETE", "value"), ("DELETE", "clear"))
    ),
    Row("GET", "connection-tests/{connection_test_id}/connection", Rule.WAITS, "not for tasks"),
    Row("PATCH", "connection-tests/{connection_test_id}", Rule.WAITS, "not for tasks"),
    Row("GET", "health", Rule.WAITS, "not for tasks"),
    Row("GET", "health/ping", Rule.WAITS, "not for tasks"),
)

_UNKNOWN = Row("", "", Rule.WAITS, "not known to this version")


def row_of(method: str, target: str) -> Row:
    """Return the row of a call. ``target`` is its path below ``/execution/``, with or without a query."""
    path = target.partition("?")[0].strip("/")
    return next((row for row, form in _FORMS if row.method == method and form.fullmatch(path)), _UNKNOWN)


def _form(path: str) -> re.Pattern[str]:
    """Return a pattern for paths of a template as FastAPI writes them."""
    parts = re.split(r"(\{[a-z_]+(?::path)?\})", path)
    matched = {True: ".+", False: "[^/]+"}
    return re.compile(
        "".join(matched[":path" in part] if part.startswith("{") else re.escape(part) for part in parts)
    )


_FORMS = tuple((row, _form(row.path)) for row in RULES)
