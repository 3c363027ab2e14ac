"""
For how long lost agents have been silent, counted on this process' own monotonic clock.

The sentinel says so once, when it finds an agent lost: with the silence it has proven by then. From the
moment that was read here the time goes on, until the sentinel says something else. So the count is never
ahead of the truth; a router that starts anew, or misses a change, is behind it and waits longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jetbridge.bus.health import is_lost
from jetbridge.bus.kv import Versioned
from jetbridge.contracts.records import HealthRecord


@dataclass
class Silences:
    """Silence by health key; feed :meth:`note` every change of the health mirror."""

    clock: Callable[[], float] = time.monotonic
    _since: dict[str, float] = field(default_factory=dict)

    def note(self, key: str, entry: Versioned[HealthRecord] | None) -> None:
        """Take in a change: a new record replaces what the one before proved."""
        if entry is None or not is_lost(entry.record):
            self._since.pop(key, None)
        else:
            self._since[key] = self.clock() - entry.record.silent_seconds

    def seconds(self, key: str) -> float:
        """Return the silence proven so far; 0 for an agent that is not lost."""
        return self.clock() - self._since[key] if key in self._since else 0.0
