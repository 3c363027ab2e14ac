"""What the executor knows of a workload it handed over, and what its record says about it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from time import monotonic

from airflow.executors.workloads import ExecuteCallback, ExecuteTask

from jetbridge.bus.workloads import VersionedWorkload, submission_of
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.records import WorkloadRecord, WorkloadState


class Sight(Enum):
    """What one look at a workload's record shows."""

    NOTHING_NEW = auto()
    FINISHED = auto()
    RELEASED = auto()
    """Its agent is lost. Whoever took the lease back has Airflow schedule the task anew."""
    OVERTAKEN = auto()
    """Another scheduler submitted it anew: its life here ended without our seeing the end."""
    MISSING = auto()
    """A record that was there is not. It may only be out of sight; the bus must be asked."""


@dataclass(kw_only=True)
class Held:
    """
    One workload that was handed over and has not ended.

    ``submission`` is None for an adopted workload until its record is seen. ``workload`` is kept to hand it
    over once more if the bus loses it; an adopted one was started, so that must not be.
    ``untold_since`` is when ``agent`` was first seen to have it, in monotonic seconds, until that is told.
    ``existence`` is the bus's answer, asked for when the record was missing.
    """

    workload_id: str
    submission: int | None = None
    workload: ExecuteTask | ExecuteCallback | None = None
    agent: str | None = None
    untold_since: float | None = None
    seen: bool = False
    existence: Future[bool] | None = None

    def look(self, current: VersionedWorkload | None) -> Sight:
        """Compare with the record as last seen, which may lag what we know ourselves."""
        if current is None:
            return Sight.MISSING if self.seen else Sight.NOTHING_NEW
        submission = submission_of(current)
        if self.submission is None:
            self.submission = submission
        if submission < self.submission:
            return Sight.NOTHING_NEW
        self.seen, self.existence = True, None
        if submission > self.submission:
            return Sight.OVERTAKEN
        return self._look_at_own(current.record)

    def _look_at_own(self, record: WorkloadRecord) -> Sight:
        if record.state is WorkloadState.FINISHED:
            return Sight.FINISHED
        if record.state is WorkloadState.RELEASED:
            return Sight.RELEASED
        if record.state is WorkloadState.LEASED and record.agent != self.agent:
            self.agent, self.untold_since = record.agent, monotonic()
        return Sight.NOTHING_NEW

    def agent_is_to_be_told(self, after_seconds: float) -> bool:
        """Say, once for each agent, that it has had the workload for ``after_seconds``."""
        if self.untold_since is None or monotonic() - self.untold_since < after_seconds:
            return False
        self.untold_since = None
        return True


def succeeded(record: WorkloadRecord) -> bool:
    """Say whether the workload's process ended well, whatever the task in it came to."""
    return record.outcome is Outcome.SUCCEEDED


def describe_end(record: WorkloadRecord) -> str:
    """Return how a workload ended, for Airflow's log and the task's history."""
    parts = [f"agent {record.agent} reports: process {record.outcome}"]
    if record.exit_code is not None:
        parts.append(f"exit code {record.exit_code}")
    if record.reason:
        parts.append(record.reason)
    return ", ".join(parts)
