"""
From silence to a verdict: pure logic, no I/O, no clock of its own.

What keeps two agents from running the same task is arithmetic on two clocks that share nothing:

* An agent counts from the moment it *sent* the last heartbeat that was answered as recorded, and has
  stopped everything before ``lease_seconds`` have passed on its monotonic clock.
* This watch counts from the moment it *saw* that heartbeat, which is later, and says *lost* only after
  ``lease_seconds`` on its own monotonic clock.

So the plane's count ends after the agent's, whatever the wall clocks say. And silence only counts while
somebody could have heard: when Redis, NATS or every gateway was away, or this process was not running,
the count starts over.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from jetbridge.contracts.records import Health

SUSPECT_AFTER_MISSED = 3
"""Heartbeats missed before an agent is suspect (design section 5)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When silence becomes what. Seconds."""

    heartbeat_seconds: float
    lease_seconds: float
    forget_seconds: float

    @property
    def suspect_seconds(self) -> float:
        """Silence after which an agent gets no new work."""
        return self.heartbeat_seconds * SUSPECT_AFTER_MISSED


@dataclass(frozen=True, kw_only=True)
class Look:
    """
    One look at the plane.

    ``at`` is this process' monotonic clock. ``beats`` are the presence members, each with whatever changes
    with its heartbeats, or None when they could not be read. ``hearing`` says whether a heartbeat could
    have arrived: Redis, NATS and at least one gateway are there; ``heard_until`` is when a gateway was last
    known to be. ``store`` identifies the Redis process that answered.
    """

    at: float
    beats: Mapping[str, Hashable] | None
    hearing: bool
    heard_until: float = float("inf")
    store: str = ""


@dataclass(frozen=True)
class Silence:
    """Proven silence of one member. ``fresh``: a new heartbeat was seen in this very look."""

    seconds: float
    fresh: bool


@dataclass
class _Member:
    score: Hashable
    heard_at: float


@dataclass
class SilenceWatch:
    """Remembers when each member last changed. Feed it every look, also the failed ones."""

    limits: Limits
    max_gap_seconds: float
    _members: dict[str, _Member] = field(default_factory=dict)
    _last_look: float | None = None
    _store: str = ""

    def take(self, look: Look) -> dict[str, Silence]:
        """Take in one look; return the proven silence of each member."""
        if self._proves_nothing(look):
            for member in self._members.values():
                member.heard_at = look.at
        self._last_look, self._store = look.at, look.store or self._store
        fresh = set()
        for name, score in (look.beats or {}).items():
            known = self._members.get(name)
            if known is None or known.score != score:
                self._members[name] = _Member(score, look.at)
                fresh.add(name)
        until = min(look.at, look.heard_until)  # nobody could have heard anything later than that
        return {
            name: Silence(max(0.0, until - member.heard_at), name in fresh)
            for name, member in self._members.items()
        }

    def _proves_nothing(self, look: Look) -> bool:
        """Say whether what happened since the last look may have gone unheard."""
        paused = self._last_look is not None and look.at - self._last_look > self.max_gap_seconds
        restarted = bool(look.store and self._store and look.store != self._store)
        return not look.hearing or look.beats is None or paused or restarted

    def verdict(self, silence_seconds: float) -> Health:
        """Return what this much silence means."""
        if silence_seconds >= self.limits.forget_seconds:
            return Health.GONE
        if silence_seconds >= self.limits.lease_seconds:
            return Health.LOST
        if silence_seconds >= self.limits.suspect_seconds:
            return Health.SUSPECT
        return Health.HEALTHY

    def forget(self, member: str) -> None:
        """Stop watching a member that is gone for good."""
        self._members.pop(member, None)
