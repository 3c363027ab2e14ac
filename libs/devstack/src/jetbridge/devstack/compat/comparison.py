"""What one side has and the other has not, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its state and its task instances'. It may have been refused, or not have ended."""

    state: str
    tasks: Mapping[str, str]


@dataclass(frozen=True)
class Observation:
    """Everything that is compared of one side: serialized Dags, import errors by file, outcomes by Dag."""

    dags: Mapping[str, Any]
    import_errors: Mapping[str, str]
    outcomes: Mapping[str, Outcome]


def differences_of_parsing(
    local: Observation, remote: Observation, volatile: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    """Yield what differs between the serialized Dags and import errors of both sides."""
    yield from _missing("Dag", local.dags, remote.dags)
    yield from _missing("import error of", local.import_errors, remote.import_errors)
    for dag_id in sorted(local.dags.keys() & remote.dags.keys()):
        masked = volatile.get(dag_id, frozenset())
        found = first_difference(without(local.dags[dag_id], masked), without(remote.dags[dag_id], masked))
        if found:
            yield f"Dag {dag_id} is serialized differently at {found}"


def differences_of_runs(local: Observation, remote: Observation) -> Iterator[str]:
    """Yield what differs between the outcomes of both sides."""
    yield from _missing("run of", local.outcomes, remote.outcomes)
    for dag_id in sorted(local.outcomes.keys() & remote.outcomes.keys()):
        theirs, ours = local.outcomes[dag_id], remote.outcomes[dag_id]
        if theirs.state != ours.state:
            yield f"run of {dag_id}: {theirs.state} with LocalExecutor, {ours.state} remotely"
        elif theirs.tasks != ours.tasks:
            yield f"run of {dag_id}: {'; '.join(_tasks(theirs.tasks, ours.tasks))}"


def first_difference(one: Any, other: Any, path: str = "") -> str:
    """Return where two JSON values differ first, with both values, or an empty text."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if found := first_difference(one.get(key), other.get(key), f"{path}.{key}"):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            if found := first_difference(left, right, f"{path}[{index}]"):
                return found
        return ""
    return "" if one == other else f"{path}: {str(one)[:200]} and {str(other)[:200]}"


def without(value: Any, fields: frozenset[str]) -> Any:
    """Return a JSON value without some fields, at any depth."""
    if isinstance(value, dict):
        return {key: without(inner, fields) for key, inner in value.items() if key not in fields}
    if isinstance(value, list):
        return [without(inner, fields) for inner in value]
    return value


def _missing(what: str, local: Mapping[str, Any], remote: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(local.keys() - remote.keys()):
        yield f"{what} {name} is missing remotely"
    for name in sorted(remote.keys() - local.keys()):
        yield f"{what} {name} is there only remotely"


def _tasks(theirs: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[str]:
    for task in sorted(theirs.keys() | ours.keys()):
        if theirs.get(task) != ours.get(task):
            yield f"{task} {theirs.get(task)} with LocalExecutor, {ours.get(task)} remotely"
