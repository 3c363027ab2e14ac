"""
What the executor needs of the bus.

Everything here may be called from the scheduler's loop: nothing waits for the network, unless its
name says so and it takes a limit.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from datetime import datetime
from typing import Protocol

from jetbridge.bus.workloads import NewWorkload, VersionedWorkload
from jetbridge.scheduler.history import HistoryEntry


class Link(Protocol):
    """The executor's side of the bus."""

    def start(self) -> None:
        """Begin; whether the bus answers or not."""

    def stop(self, flush_seconds: float) -> None:
        """Let what is on its way arrive for at most ``flush_seconds``, then end."""

    def submit(
        self, workload: NewWorkload, traceparent: str | None, *, queued_at: datetime | None = None
    ) -> Future[int]:
        """
        Hand a workload over, however long the bus is away; the result is its submission.

        With ``queued_at`` (adoption) it may have been handed over since then already, wholly or in part;
        then only what is missing is done. Cancelling the future stops trying. Calls for one workload,
        removals included, take effect in their order.
        """

    def remove(self, workload_id: str, submission: int | None = None) -> None:
        """Delete the workload's record, but only while it is of ``submission`` if that is given."""

    def record(self, workload_id: str) -> VersionedWorkload | None:
        """Return the workload's record as last seen."""

    def exists(self, workload_id: str) -> Future[bool]:
        """Ask the bus whether the workload has a record, however long it is away."""

    def ask(self, workload_ids: Collection[str], wait_seconds: float) -> Collection[str] | None:
        """Return those workloads that have a record now; None when the bus did not say in time. Waits."""

    def abandoned(self) -> list[VersionedWorkload]:
        """Return finished records that should have been taken note of long ago, each once in a while."""

    def history(self) -> list[HistoryEntry]:
        """Return new entries for the audit log; those of the call before are confirmed as written."""

    def nudged(self) -> bool:
        """Say whether somebody said, since the last call, that there is something to schedule."""

    def wait_for_news(self, seconds: float) -> bool:
        """Wait until something changed since the last call; False when nothing did. Waits."""
