"""
How much work there is for some queues: what an autoscaler outside asks for.

Counted from the mirror of records, at most once a second for all askers. Everything that somebody has to run
counts, also what runs: a worker may only go when neither is there. Records say when they last changed, so
the age of waiting work is that of its last submission.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from jetbridge.bus.kv import Versioned
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.gateway.known import Known

BELIEVED_SECONDS = 1.0

_WAITS = frozenset({WorkloadState.SUBMITTED, WorkloadState.OFFERED, WorkloadState.RELEASED})
"""Released: its task is being queued anew, and somebody will have to run it."""


@dataclass(frozen=True)
class Depth:
    """Workloads of a queue; ``oldest`` is since when the one that waits longest does, None for none."""

    waiting: int = 0
    running: int = 0
    oldest: datetime | None = None

    def __add__(self, other: Depth) -> Depth:
        since = [one for one in (self.oldest, other.oldest) if one is not None]
        return Depth(
            self.waiting + other.waiting, self.running + other.running, min(since) if since else None
        )

    def waited_seconds(self, now: datetime) -> float:
        """Return how long the oldest has waited; 0 when none does."""
        return max(0.0, (now - self.oldest).total_seconds()) if self.oldest else 0.0


@dataclass
class Depths:
    """The depths of all queues, as of a moment ago."""

    workloads: Known[WorkloadRecord]
    _counted: dict[str, Depth] = field(default_factory=dict)
    _counted_at: float = -BELIEVED_SECONDS

    def by_queue(self) -> dict[str, Depth]:
        """Return every queue that has any work."""
        now = time.monotonic()
        if now - self._counted_at >= BELIEVED_SECONDS:
            self._counted, self._counted_at = count(one for _, one in self.workloads.mirror.items()), now
        return self._counted

    def of(self, queues: Collection[str]) -> Depth:
        """Return the sum over some queues."""
        found = self.by_queue()
        return sum((found.get(queue, Depth()) for queue in set(queues)), Depth())


def count(workloads: Iterable[Versioned[WorkloadRecord]]) -> dict[str, Depth]:
    """Return the depth of each queue that occurs."""
    depths: dict[str, Depth] = {}
    for workload in workloads:
        record = workload.record
        depth = depths.get(record.queue, Depth())
        if record.state in _WAITS:
            depths[record.queue] = depth + Depth(waiting=1, oldest=record.changed_at)
        elif record.state is WorkloadState.LEASED:
            depths[record.queue] = replace(depth, running=depth.running + 1)
    return depths


def waited_seconds(depth: Depth) -> float:
    """Return how long the oldest of a depth has waited by this machine's clock."""
    return depth.waited_seconds(datetime.now(UTC))
