"""A link without a bus, for tests: what was asked of it can be seen, and what it answers be said."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from jetbridge.bus.workloads import NewWorkload, VersionedWorkload
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.scheduler.history import HistoryEntry


@dataclass
class Submitted:
    """One call of :meth:`FakeLink.submit`."""

    workload: NewWorkload
    traceparent: str | None
    queued_at: datetime | None
    answer: Future[int]


@dataclass
class FakeLink:
    """
    Keeps records in memory. Nothing is acknowledged before :meth:`acknowledge`.

    :param reachable: whether ``ask`` gets an answer
    """

    reachable: bool = True
    submitted: list[Submitted] = field(default_factory=list)
    records: dict[str, VersionedWorkload] = field(default_factory=dict)
    removed: list[tuple[str, int | None]] = field(default_factory=list)
    questions: dict[str, Future[bool]] = field(default_factory=dict)
    entries: list[HistoryEntry] = field(default_factory=list)
    left_behind: list[VersionedWorkload] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    _revision: int = 0

    def start(self) -> None:
        """Do nothing."""
        self.log.append("start")

    def stop(self, flush_seconds: float) -> None:
        """Do nothing."""
        self.log.append(f"stop {flush_seconds:g}")

    def submit(
        self, workload: NewWorkload, traceparent: str | None, *, queued_at: datetime | None = None
    ) -> Future[int]:
        """Remember the call."""
        self.submitted.append(Submitted(workload, traceparent, queued_at, Future()))
        return self.submitted[-1].answer

    def remove(self, workload_id: str, submission: int | None = None) -> None:
        """Remember the call; the record goes when a test says so."""
        self.removed.append((workload_id, submission))

    def record(self, workload_id: str) -> VersionedWorkload | None:
        """Return what a test put there."""
        return self.records.get(workload_id)

    def exists(self, workload_id: str) -> Future[bool]:
        """Remember the question; a test answers it."""
        return self.questions.setdefault(workload_id, Future())

    def ask(self, workload_ids: Collection[str], wait_seconds: float) -> Collection[str] | None:
        """Answer from the records, or not at all."""
        _ = wait_seconds
        return {one for one in workload_ids if one in self.records} if self.reachable else None

    def abandoned(self) -> list[VersionedWorkload]:
        """Return what a test left behind."""
        left, self.left_behind = self.left_behind, []
        return left

    def history(self) -> list[HistoryEntry]:
        """Return what a test put there."""
        entries, self.entries = self.entries, []
        return entries

    def wait_for_news(self, seconds: float) -> bool:
        """Return at once."""
        _ = seconds
        return False

    # -- for tests

    def acknowledge(self, *positions: int) -> None:
        """Take the submitted workloads at these positions, or all, as the bus would."""
        for position in positions or range(len(self.submitted)):
            sent = self.submitted[position]
            if not sent.answer.done():
                sent.answer.set_result(self.put(sent.workload))

    def put(self, workload: NewWorkload, **changes: Any) -> int:
        """Write the record of a new submission and return it."""
        record = WorkloadRecord(
            workload_id=workload.workload_id,
            kind=workload.kind,
            state=WorkloadState.SUBMITTED,
            queue=workload.queue,
            coordinates=workload.coordinates,
            changed_at=datetime.now(UTC),
        )
        self._write(msgspec.structs.replace(record, **changes))
        return self._revision

    def move(self, workload_id: str, state: WorkloadState, **changes: Any) -> VersionedWorkload:
        """Move a record on, as a gateway would."""
        before = self.records[workload_id]
        submission = before.record.submission or before.revision
        return self._write(
            msgspec.structs.replace(before.record, state=state, submission=submission, **changes)
        )

    def lease(self, workload_id: str, agent: str = "worker-1") -> None:
        """Let an agent have the workload."""
        self.move(workload_id, WorkloadState.LEASED, agent=agent)

    def finish(self, workload_id: str, outcome: Outcome = Outcome.SUCCEEDED, reason: str = "") -> None:
        """Let the workload's process have ended."""
        self.move(workload_id, WorkloadState.FINISHED, outcome=outcome, reason=reason)

    def _write(self, record: WorkloadRecord) -> VersionedWorkload:
        self._revision += 1
        self.records[record.workload_id] = VersionedWorkload(record, self._revision)
        return self.records[record.workload_id]
