"""
Which queues have work and nobody to take it, since when, and where their work may go. Pure logic.

*Nobody* means no healthy worker that serves the queue. One without a free slot will have one; one that is
suspect, cordoned or draining gets no new work. Time is counted on this process' own monotonic clock from when
it saw it first, so no router needs another's clock, or its own wall clock, to be right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from jetbridge.bus.fleet import AgentState, state_of
from jetbridge.contracts.policies import Failover, WhenStarving
from jetbridge.contracts.records import (
    AgentRecord,
    HealthRecord,
    OrderRecord,
    WorkloadRecord,
    WorkloadState,
)

WAITING = frozenset({WorkloadState.SUBMITTED, WorkloadState.OFFERED})

STUCK_SECONDS = 10.0
"""How long a lane's work stands still before a router believes that the one that was to move it died."""


def takes_work(agent: AgentRecord, health: HealthRecord | None, order: OrderRecord | None) -> bool:
    """
    Say whether an agent can take new work: it is healthy, and nobody has it cordoned or drained.

    One that no sentinel has looked at yet may not live at all.
    """
    state = state_of(agent.instance, health, order, says_draining=agent.draining)
    return agent.role == "worker" and state is AgentState.HEALTHY


def destination(record: WorkloadRecord, policy: Failover, served: Collection[str]) -> str | None:
    """
    Return the queue to which starving work goes, or None where it stays.

    The task's own queue comes first, for work that was moved away from it and starves again. Work that waits
    well stays where it is.
    """
    if policy.when_starving is not WhenStarving.MOVE:
        return None
    places = (record.queue, *policy.fallback_queues)
    return next((place for place in places if place != record.waits_in and place in served), None)


@dataclass(frozen=True, kw_only=True)
class Starving:
    """One queue: for how long nobody could take its work, and for how long no less of it has waited."""

    queue: str
    waiting: int
    seconds: float
    stuck_seconds: float


@dataclass
class _Seen:
    since: float
    waiting: int
    moved_at: float


@dataclass
class StarvationWatch:
    """Remembers since when each queue starves. Feed it every look."""

    _seen: dict[str, _Seen] = field(default_factory=dict)

    def take(self, at: float, waiting: Mapping[str, int], served: Collection[str]) -> list[Starving]:
        """Take in a look at ``at`` (monotonic); return the queues that starve, however short."""
        starving = {queue: count for queue, count in waiting.items() if queue not in served}
        self._seen = {queue: self._look(queue, at, count) for queue, count in starving.items()}
        return [
            Starving(
                queue=queue, waiting=seen.waiting, seconds=at - seen.since, stuck_seconds=at - seen.moved_at
            )
            for queue, seen in self._seen.items()
        ]

    def forget(self) -> None:
        """Begin to count anew: for a while nothing could be seen, so nothing is proven."""
        self._seen.clear()

    def _look(self, queue: str, at: float, waiting: int) -> _Seen:
        seen = self._seen.get(queue)
        if seen is None:
            return _Seen(at, waiting, at)
        return _Seen(seen.since, waiting, at if waiting < seen.waiting else seen.moved_at)


def waiting_in(records: Iterable[WorkloadRecord]) -> dict[str, int]:
    """Count what waits, by the queue whose agents may take it."""
    counts: dict[str, int] = {}
    for record in records:
        if record.state in WAITING:
            counts[record.waits_in] = counts.get(record.waits_in, 0) + 1
    return counts
