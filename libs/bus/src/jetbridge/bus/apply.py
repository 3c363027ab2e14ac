"""
Making streams and buckets as declared, and saying where they are not.

nats-server ignores settings it does not know (2.9 silently drops everything newer), so what came back is
compared with what was asked, for every declared setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nats.js import api
from nats.js.errors import NotFoundError

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import TopologyError
from jetbridge.bus.kv import answered
from jetbridge.bus.topology import BUCKETS, OBJECT_BUCKETS, STREAMS

IMMUTABLE = frozenset({"retention", "storage"})
"""Stream settings NATS never changes in place: only a person may decide to delete and make anew."""


class Drift(StrEnum):
    """How something on the server differs from its declaration."""

    MISSING = "missing"
    DIFFERENT = "different"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference. ``setting`` is empty when the whole stream is missing."""

    stream: str
    drift: Drift
    setting: str = ""
    declared: Any = None
    actual: Any = None

    def __str__(self) -> str:
        if self.drift is Drift.MISSING:
            return f"{self.stream}: missing"
        return f"{self.stream}: {self.setting} is {self.actual!r}, declared {self.declared!r}"


async def diff(bus: Bus, replicas: int) -> list[Difference]:
    """Return every difference between the declaration and the server; empty when there is none."""
    found: list[Difference] = []
    for config in declared(replicas):
        found += await _diff_one(bus, config)
    return found


async def apply(bus: Bus, replicas: int) -> list[Difference]:
    """
    Create what is missing, change what differs, and return what was different before.

    Raises :class:`TopologyError` when a difference cannot be changed in place, or is still there
    afterwards (a server too old for a setting). Nothing is ever deleted. Running it twice, or twice at
    once, changes nothing more.
    """
    before = await diff(bus, replicas)
    _refuse_immutable(before)
    configs = {config.name: config for config in declared(replicas)}
    for name in dict.fromkeys(difference.stream for difference in before):
        missing = any(d.drift is Drift.MISSING for d in before if d.stream == name)
        change = bus.js.add_stream if missing else bus.js.update_stream
        await answered(change(configs[name]))
    if after := await diff(bus, replicas):
        listing = "; ".join(map(str, after))
        msg = f"nats-server did not take every setting (is it older than 2.9?): {listing}"
        raise TopologyError(msg)
    return before


def declared(replicas: int) -> list[api.StreamConfig]:
    """Return the configuration of every stream, those behind buckets included."""
    return [
        *(stream.config(replicas) for stream in STREAMS),
        *(bucket.config(replicas) for bucket in BUCKETS),
        *(bucket.config(replicas) for bucket in OBJECT_BUCKETS),
    ]


async def _diff_one(bus: Bus, config: api.StreamConfig) -> list[Difference]:
    name = config.name or ""
    try:
        info = await answered(bus.js.stream_info(name))
    except NotFoundError:
        return [Difference(stream=name, drift=Drift.MISSING)]
    asked, actual = config.as_dict(), info.config.as_dict()
    return [
        Difference(
            stream=name,
            drift=Drift.DIFFERENT,
            setting=setting,
            declared=value,
            actual=actual.get(setting),
        )
        for setting, value in asked.items()
        if not _same(value, actual.get(setting))
    ]


def _same(declared_value: Any, actual: Any) -> bool:
    """Compare one setting; the server leaves out what is off or unlimited."""
    return (
        declared_value == actual
        or (not declared_value and not actual)
        or (declared_value == -1 and not actual)
    )


def _refuse_immutable(differences: list[Difference]) -> None:
    stuck = [d for d in differences if d.setting in IMMUTABLE]
    if stuck:
        listing = "; ".join(map(str, stuck))
        msg = f"cannot be changed in place: {listing}. Drain the stream, delete it, and apply again"
        raise TopologyError(msg)
