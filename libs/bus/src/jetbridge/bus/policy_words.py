"""Policies as people write and read them: ``field=value``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from jetbridge.contracts.boundary import check_rule
from jetbridge.contracts.policies import FailoverPolicy, PolicyRecord

_BOUNDARY = "boundary."

CheckBoundary = Callable[[str, str], None]


class PolicyTextError(ValueError):
    """What somebody wrote is no policy; the text says why."""


def _known_rule(data: str, rule: str) -> None:
    try:
        check_rule(data, rule)
    except ValueError as exc:
        raise PolicyTextError(str(exc)) from exc


def apply_words(
    record: PolicyRecord, words: Iterable[str], check_boundary: CheckBoundary = _known_rule
) -> PolicyRecord:
    """
    Return ``record`` with the fields that ``words`` name; an empty value leaves a field to wider scopes.

    Raises :class:`PolicyTextError`, and then nothing was changed.
    """
    failover, boundary = msgspec.to_builtins(record.failover), dict(record.boundary)
    for word in words:
        name, is_pair, value = word.partition("=")
        if not is_pair:
            raise PolicyTextError(f"{word!r} is not FIELD=VALUE; fields are {_known()}")
        if name.startswith(_BOUNDARY):
            _set(boundary, name.removeprefix(_BOUNDARY), value, check_boundary)
        elif name in FailoverPolicy.__struct_fields__:
            failover[name] = _value(name, value)
        else:
            raise PolicyTextError(f"there is no field {name!r}; fields are {_known()}")
    return msgspec.structs.replace(record, failover=_failover(failover), boundary=boundary)


def describe(record: PolicyRecord) -> list[str]:
    """Return one line for each thing a policy decides, as ``set`` takes it."""
    decided = {
        name: value
        for name in FailoverPolicy.__struct_fields__
        if (value := getattr(record.failover, name)) is not None
    }
    return [
        *(f"{record.scope} {name}={_shown(value)}" for name, value in decided.items()),
        *(f"{record.scope} {_BOUNDARY}{data}={rule}" for data, rule in sorted(record.boundary.items())),
    ]


def _set(boundary: dict[str, str], data: str, rule: str, check: CheckBoundary) -> None:
    if not rule:
        boundary.pop(data, None)
        return
    check(data, rule)
    boundary[data] = rule


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    return [part.strip() for part in text.split(",")] if name == "fallback_queues" else text


def _failover(fields: dict[str, Any]) -> FailoverPolicy:
    try:
        return msgspec.convert(fields, FailoverPolicy, strict=False)
    except msgspec.ValidationError as exc:
        raise PolicyTextError(str(exc)) from exc


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _known() -> str:
    return f"{', '.join(FailoverPolicy.__struct_fields__)} and {_BOUNDARY}CLASS"
