"""
Who may ask what of Airflow's Execution API (Airflow 3.3): one row per route, in Airflow's own order. Pure.

A row says who asks this route at all, and what that it names must be the asker's own. What is in no row is
refused. ``test_execution_rules.py`` compares the rows with Airflow's routes and fails when a new version of
Airflow has one that nobody classified.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from jetbridge.contracts.assets import OwnAssets
from jetbridge.contracts.messages import TaskCoordinates


class Kind(Enum):
    """Who asks."""

    TASK = "task"
    CALLBACK = "callback"
    TRIGGER = "trigger"
    DAG_PROCESSOR = "Dag processor"


class Own(Enum):
    """What a route names must be the asker's own."""

    ANY = auto()
    """It names nothing that belongs to one task: what an asset is called, a variable."""
    TASK_INSTANCE = auto()
    """``task_instance_id`` is that of the lease, or of the task that waits for the trigger."""
    XCOM = auto()
    """Dag, run, task and map index are the asker's: an XCom is written by its own task."""
    RUN = auto()
    """Dag and run are the asker's."""
    DAG = auto()
    """The Dag is the asker's, in any of its runs; :class:`OtherDags` may open the others."""
    ASSET = auto()
    """The asset is an inlet or outlet of the asker's task, or what its trigger watches; opened likewise."""
    ALIAS = auto()
    """The same of the alias of an asset."""


class OtherDags(StrEnum):
    """What may be asked about other Dags than the asker's own, if the gateway's settings open it."""

    STATES = "states"
    """States and times of runs and tasks: what sensors of other Dags wait for."""
    TRIGGER = "trigger"
    """Starting and clearing runs."""
    RUNS = "runs"
    """A run in full, with its ``conf``."""
    XCOMS = "xcoms"
    """What XComs hold, which by default are references to a site's own store."""
    ASSETS = "assets"
    """Events and stores of assets that are neither inlets nor outlets of the asker's task."""


class Route(NamedTuple):
    """One route: its method and path as Airflow declares them, who asks it, and for what."""

    method: str
    path: str
    kinds: frozenset[Kind]
    own: Own = Own.ANY
    others: OtherDags | None = None


_NOBODY: frozenset[Kind] = frozenset()
_TASK = frozenset({Kind.TASK})
_TRIGGER = frozenset({Kind.TRIGGER})
_RUNNING = _TASK | _TRIGGER
_WITH_CALLBACKS = _RUNNING | {Kind.CALLBACK}
_READING = _RUNNING | {Kind.DAG_PROCESSOR}

_TI = "/task-instances/{task_instance_id}"
_XCOM = "/xcoms/{dag_id}/{run_id}/{task_id}/{key:path}"
_RUN = "/dag-runs/{dag_id}/{run_id}"
_STORE = "/store/ti/{task_instance_id}"
_BY_NAME, _BY_URI = "/store/asset/by-name", "/store/asset/by-uri"

ROUTES = (
    Route("GET", "/health", _NOBODY),
    Route("GET", "/health/ping", _NOBODY),
    # What an asset is called and where it is: a task has to ask before it can say which of them it means.
    Route("GET", "/assets/by-name", _TASK),
    Route("GET", "/assets/by-uri", _TASK),
    Route("GET", "/assets/by-alias", _TASK),
    Route("GET", "/asset-events/by-asset", _TASK, Own.ASSET, OtherDags.ASSETS),
    Route("GET", "/asset-events/by-asset-alias", _TASK, Own.ALIAS, OtherDags.ASSETS),
    # A test of a connection runs where the executor says it can, and ours says it cannot.
    Route("GET", "/connection-tests/{connection_test_id}/connection", _NOBODY),
    Route("PATCH", "/connection-tests/{connection_test_id}", _NOBODY),
    Route("GET", "/connections/{connection_id}", _WITH_CALLBACKS),
    # Before /dag-runs/{dag_id}/{run_id}, as in Airflow: clients of an older version ask this one.
    Route("GET", "/dag-runs/{dag_id}/previous", _READING, Own.DAG, OtherDags.STATES),
    Route("GET", _RUN, _TASK, Own.DAG, OtherDags.RUNS),
    Route("POST", _RUN, _TASK, Own.DAG, OtherDags.TRIGGER),
    Route("POST", f"{_RUN}/clear", _TASK, Own.DAG, OtherDags.TRIGGER),
    Route("GET", f"{_RUN}/state", _READING, Own.DAG, OtherDags.STATES),
    Route("GET", "/dag-runs/count", _READING, Own.DAG, OtherDags.STATES),
    Route("GET", "/dag-runs/previous", _READING, Own.DAG, OtherDags.STATES),
    Route("GET", "/dags/{dag_id}", _TASK, Own.DAG, OtherDags.STATES),
    Route("GET", "/task-instances/count", _READING, Own.DAG, OtherDags.STATES),
    Route("GET", "/task-instances/previous/{dag_id}/{task_id}", _READING, Own.DAG, OtherDags.STATES),
    Route("GET", "/task-instances/states", _READING, Own.DAG, OtherDags.STATES),
    Route("GET", "/task-instances/breadcrumbs", _TASK, Own.RUN),
    # A trigger ends a task with an event, which the bridge checks; never by its state.
    Route("PATCH", f"{_TI}/run", _TASK, Own.TASK_INSTANCE),
    Route("PATCH", f"{_TI}/state", _TASK, Own.TASK_INSTANCE),
    Route("PATCH", f"{_TI}/skip-downstream", _TASK, Own.TASK_INSTANCE),
    Route("PUT", f"{_TI}/heartbeat", _TASK, Own.TASK_INSTANCE),
    Route("PUT", f"{_TI}/rtif", _TASK, Own.TASK_INSTANCE),
    Route("PATCH", f"{_TI}/rendered-map-index", _TASK, Own.TASK_INSTANCE),
    Route("GET", f"{_TI}/previous-successful-dagrun", _TASK, Own.TASK_INSTANCE),
    Route("GET", f"{_TI}/validate-inlets-and-outlets", _TASK, Own.TASK_INSTANCE),
    Route("GET", "/task-reschedules/{task_instance_id}/start_date", _TASK, Own.TASK_INSTANCE),
    Route("GET", "/variables/keys", _WITH_CALLBACKS),
    Route("GET", "/variables/{variable_key:path}", _WITH_CALLBACKS),
    Route("PUT", "/variables/{variable_key:path}", _RUNNING),
    Route("DELETE", "/variables/{variable_key:path}", _RUNNING),
    Route("GET", f"{_XCOM}/item/{{offset}}", _READING, Own.DAG, OtherDags.XCOMS),
    Route("GET", f"{_XCOM}/slice", _READING, Own.DAG, OtherDags.XCOMS),
    Route("HEAD", _XCOM, _READING, Own.DAG, OtherDags.XCOMS),
    Route("GET", _XCOM, _READING, Own.DAG, OtherDags.XCOMS),
    Route("POST", _XCOM, _RUNNING, Own.XCOM),
    Route("DELETE", _XCOM, _RUNNING, Own.XCOM),
    Route("POST", "/hitlDetails/{task_instance_id}", _TASK, Own.TASK_INSTANCE),
    Route("PATCH", "/hitlDetails/{task_instance_id}", _TRIGGER, Own.TASK_INSTANCE),
    Route("GET", "/hitlDetails/{task_instance_id}", _RUNNING, Own.TASK_INSTANCE),
    Route("GET", f"{_STORE}/{{key:path}}", _TASK, Own.TASK_INSTANCE),
    Route("PUT", f"{_STORE}/{{key:path}}", _TASK, Own.TASK_INSTANCE),
    Route("DELETE", f"{_STORE}/{{key:path}}", _TASK, Own.TASK_INSTANCE),
    Route("DELETE", _STORE, _TASK, Own.TASK_INSTANCE),
    # Airflow lets every task at every asset here.
    Route("GET", f"{_BY_NAME}/value", _RUNNING, Own.ASSET, OtherDags.ASSETS),
    Route("PUT", f"{_BY_NAME}/value", _RUNNING, Own.ASSET, OtherDags.ASSETS),
    Route("DELETE", f"{_BY_NAME}/value", _RUNNING, Own.ASSET, OtherDags.ASSETS),
    Route("DELETE", f"{_BY_NAME}/clear", _RUNNING, Own.ASSET, OtherDags.ASSETS),
    Route("GET", f"{_BY_URI}/value", _RUNNING, Own.ASSET, OtherDags.ASSETS),
    Route("PUT", f"{_BY_URI}/value", _RUNNING, Own.ASSET, OtherDags.ASSETS),
    Route("DELETE", f"{_BY_URI}/value", _RUNNING, Own.ASSET, OtherDags.ASSETS),
    Route("DELETE", f"{_BY_URI}/clear", _RUNNING, Own.ASSET, OtherDags.ASSETS),
)

_NO_ASSETS = OwnAssets()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """
    On whose behalf something is asked.

    ``task_instance`` and ``coordinates`` are None for a Dag processor and for a trigger without a task.
    ``queue`` is that of the task. ``dags`` are the Dags that are its own, ``assets`` its assets where
    :func:`needs_assets` says so.
    """

    kind: Kind
    task_instance: str | None = None
    coordinates: TaskCoordinates | None = None
    dags: frozenset[str] = frozenset()
    queue: str = ""
    trigger: int | None = None
    assets: OwnAssets = _NO_ASSETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has a row: the row, and what the path and the query name."""

    route: Route
    path: Mapping[str, str]
    query: tuple[tuple[str, str], ...]

    def named(self, name: str) -> str | None:
        """
        Return what is named in the path or else in the query; None when nothing is.

        Raises :class:`NotAllowedError` when the query names it twice: servers differ in which one counts.
        """
        if name in self.path:
            return self.path[name]
        found = [value for key, value in self.query if key == name]
        if len(found) > 1:
            raise NotAllowedError(f"the query names {name} more than once")
        return found[0] if found else None


class NotAllowedError(Exception):
    """The asker may not ask this; the text says why, and repeats nothing that was sent."""


def find(method: str, target: str) -> Asked:
    """
    Return the row for a request below ``/execution``; raises :class:`NotAllowedError` when there is none.

    ``target`` is path and query as they go on to Airflow; they are decoded as uvicorn and Starlette do.
    """
    raw_path, _, raw_query = target.partition("?")
    path = unquote(raw_path)
    for route, pattern in _PATTERNS:
        if route.method == method and (match := pattern.fullmatch(path)):
            query = tuple(parse_qsl(raw_query, keep_blank_values=True))
            return Asked(route=route, path=match.groupdict(), query=query)
    raise NotAllowedError("this gateway knows no rule for this operation of Airflow's Execution API")


def check(asked: Asked, asker: Asker, open_to_all: Collection[OtherDags]) -> None:
    """Raise :class:`NotAllowedError` unless ``asker`` may ask this; ``open_to_all`` is from the settings."""
    route = asked.route
    if asker.kind not in route.kinds:
        raise NotAllowedError(f"a {asker.kind.value} does not ask this")
    if route.own is Own.TASK_INSTANCE and asked.named("task_instance_id") != asker.task_instance:
        raise NotAllowedError("the task instance is not that of this token")
    if route.own in (Own.XCOM, Own.RUN):
        _check_own(asked, asker.coordinates)
    if route.own is Own.DAG and asked.named("dag_id") not in asker.dags and route.others not in open_to_all:
        raise NotAllowedError(
            "it is about another Dag than this token's; an operator can open that for all with "
            + _opened_by(route, open_to_all)
        )
    if needs_assets(asked, open_to_all) and not _is_own_asset(asked, asker.assets):
        raise NotAllowedError(
            "the asset is neither inlet nor outlet of this token's task; an operator can open that for all "
            "with " + _opened_by(route, open_to_all)
        )


def _opened_by(route: Route, open_to_all: Collection[OtherDags]) -> str:
    return f"JETBRIDGE_GATEWAY_OTHER_DAGS={','.join(sorted({*open_to_all, *filter(None, [route.others])}))}"


def needs_dag(asked: Asked, open_to_all: Collection[OtherDags]) -> bool:
    """Say whether it matters whose the Dag is that a request names."""
    return asked.route.own is Own.DAG and asked.route.others not in open_to_all


def needs_assets(asked: Asked, open_to_all: Collection[OtherDags]) -> bool:
    """Say whether it matters whose the asset is that a request names."""
    return asked.route.own in (Own.ASSET, Own.ALIAS) and asked.route.others not in open_to_all


def _is_own_asset(asked: Asked, own: OwnAssets) -> bool:
    name, uri = asked.named("name"), asked.named("uri")
    if asked.route.own is Own.ALIAS:
        return name in own.aliases
    # With both, Airflow looks for the one asset that has both; its client sends the one it has not as empty.
    named = [one in of_them for one, of_them in ((name, own.names), (uri, own.uris)) if one]
    return bool(named) and all(named)


def _check_own(asked: Asked, own: TaskCoordinates | None) -> None:
    if own is None:
        raise NotAllowedError("no task instance belongs to this token")
    expected = {"dag_id": own.dag_id, "run_id": own.run_id}
    if asked.route.own is Own.XCOM:
        expected |= {"task_id": own.task_id, "map_index": str(own.map_index)}
    for name, value in expected.items():
        found = asked.named(name)
        if (_UNMAPPED if found is None and name == "map_index" else found) != value:
            raise NotAllowedError(f"{name} is not that of this token's task instance")


_UNMAPPED = "-1"
"""What Airflow takes a missing ``map_index`` for."""


def _pattern(path: str) -> re.Pattern[str]:
    """Return the template as Starlette reads it: a parameter is one segment, or with ``:path`` anything."""
    text = re.escape(path).replace(r"\{", "{").replace(r"\}", "}")
    text = re.sub(r"\{(\w+):path\}", r"(?P<\1>.*)", text)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text), re.DOTALL)


_PATTERNS = tuple((route, _pattern(route.path)) for route in ROUTES)
