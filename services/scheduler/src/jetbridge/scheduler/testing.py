"""
For tests: workloads as Airflow makes them, and a link without a bus.

What was asked of the link can be seen, and what it answers be said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import msgspec
from airflow.executors.workloads import BundleInfo, ExecuteCallback, ExecuteTask, TaskInstanceDTO
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod

from jetbridge.bus.workloads import NewWorkload, VersionedWorkload
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.scheduler.history import HistoryEntry

TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
TOKEN = "airflow-token-of-the-plane"  # noqa: S105 - a marker to search for


def make_task(task_id: str = "t", weight: int = 1, queue: str = "default", **ti: Any) -> ExecuteTask:
    """Return the workload of a task instance; ``ti`` are further fields of Airflow's DTO."""
    fields: dict[str, Any] = {
        "id": uuid4(),
        "dag_id": "d",
        "run_id": "r",
        "task_id": task_id,
        "try_number": 1,
        "dag_version_id": uuid4(),
        "pool_slots": 1,
        "priority_weight": weight,
        "queue": queue,
        "context_carrier": {"traceparent": TRACEPARENT},
    }
    return ExecuteTask(
        token=TOKEN,
        ti=TaskInstanceDTO(**fields | ti),
        dag_rel_path=Path("d.py"),
        bundle_info=BundleInfo(name="dags"),
        log_path=f"dag_id=d/run_id=r/task_id={task_id}/attempt=1.log",
    )


def make_callback(**kwargs: Any) -> ExecuteCallback:
    """Return the workload of a deadline's callback with these keyword arguments."""
    data = {
        "path": "alerts.late",
        "kwargs": {"context": {"dag_run": {"dag_run_id": "r"}}, **kwargs},
        "dag_id": "d",
    }
    callback = CallbackDTO(id=str(uuid4()), fetch_method=CallbackFetchMethod.IMPORT_PATH, data=data)
    return ExecuteCallback(
        token=TOKEN,
        callback=callback,
        dag_rel_path=Path("d.py"),
        bundle_info=BundleInfo(name="dags"),
        log_path="executor_callbacks/d/r/1",
    )


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
    news: deque[Callable[[], None]] = field(default_factory=deque)
    nudge: bool = False
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
        """Let what a test put into ``news`` happen, one piece at a call; without any, let the time pass."""
        if not self.news:
            self.log.append("waited")
            sleep(seconds)
            return False
        self.news.popleft()()
        return True

    def nudged(self) -> bool:
        """Return what a test put there."""
        nudged, self.nudge = self.nudge, False
        return nudged

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
