"""
For how long lost agents have been silent, counted on this process' own monotonic clock.

The sentinel says so once, when it finds an agent lost: with the silence it has proven by then. From the
moment that was seen here the time goes on, until the sentinel says something else. So the count is never
ahead of the truth; a router that starts anew, or misses a change, is behind it and waits longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jetbridge.bus.health import is_lost
from jetbridge.bus.kv import Versioned
from jetbridge.contracts.records import HealthRecord


@dataclass(frozen=True)
class _Loss:
    """One verdict, and since when the agent was silent if it was right."""

    revision: int
    since: float


@dataclass
class Silences:
    """Silence by health key. Ask in every round: what was not seen yet is counted from then on."""

    clock: Callable[[], float] = time.monotonic
    _losses: dict[str, _Loss] = field(default_factory=dict)

    def seconds(self, key: str, entry: Versioned[HealthRecord] | None) -> float:
        """Return the silence proven so far, given the health record; 0 for an agent that is not lost."""
        if entry is None or not is_lost(entry.record):
            self._losses.pop(key, None)
            return 0.0
        known = self._losses.get(key)
        if known is None or known.revision != entry.revision:
            known = _Loss(entry.revision, self.clock() - entry.record.silent_seconds)
            self._losses[key] = known
        return self.clock() - known.since
