"""Bodies of the messages on the bus. A moved shape needs a new ``VERSION`` (a test insists)."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from jetbridge.contracts.envelope import Body
from jetbridge.contracts.ids import AgentName, Epoch, WorkloadId


class WorkloadKind(StrEnum):
    """What the worker calls: Airflow's task supervisor or its callback supervisor."""

    TASK = "task"
    CALLBACK = "callback"


class Outcome(StrEnum):
    """
    How the *process* of a workload ended.

    The task's own state travels through Airflow's Execution API and may differ: a task that failed
    properly reports ``failed`` there and its process still ends with ``succeeded`` here. ``abandoned`` says
    that nothing of it runs any more and nobody knows how far it came, because its agent had to let go of it:
    it may run elsewhere.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"


class TaskCoordinates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a workload belongs in Airflow; for people who read logs, events and traces."""

    dag_id: str
    run_id: str
    task_id: str = ""
    map_index: int = -1
    try_number: int = 0


class WorkloadSubmitted(Body, frozen=True, kw_only=True):
    """
    A workload waits for a worker (stream WORK).

    ``submission`` is the revision of the KV record written just before; a message whose submission
    is not the record's has been overtaken by a newer one and is dropped. ``spec`` is Airflow's own
    workload as JSON without its token; only the worker reads it.
    """

    TYPE: ClassVar[str] = "workload.submitted"

    workload_id: WorkloadId
    submission: Epoch
    kind: WorkloadKind
    queue: str
    coordinates: TaskCoordinates
    spec: msgspec.Raw


class WorkloadLeased(Body, frozen=True, kw_only=True):
    """An agent accepted an offer and may run it (stream EVENTS)."""

    TYPE: ClassVar[str] = "workload.leased"

    workload_id: WorkloadId
    epoch: Epoch
    agent: AgentName
    queue: str
    coordinates: TaskCoordinates


class WorkloadFinished(Body, frozen=True, kw_only=True):
    """An agent reported the end of a lease (stream EVENTS)."""

    TYPE: ClassVar[str] = "workload.finished"

    workload_id: WorkloadId
    epoch: Epoch
    agent: AgentName
    queue: str
    coordinates: TaskCoordinates
    outcome: Outcome
    exit_code: int | None = None
    reason: str = ""


class WorkloadRejected(Body, frozen=True, kw_only=True):
    """A message on WORK could not be used and was set aside (stream EVENTS)."""

    TYPE: ClassVar[str] = "workload.rejected"

    subject: str
    reason: str


class AgentRegistered(Body, frozen=True, kw_only=True):
    """An agent exchanged its token for a credential (stream EVENTS)."""

    TYPE: ClassVar[str] = "agent.registered"

    agent: AgentName
    role: str
    queues: tuple[str, ...]
    token_id: str


ALL_BODIES: tuple[type[Body], ...] = (
    WorkloadSubmitted,
    WorkloadLeased,
    WorkloadFinished,
    WorkloadRejected,
    AgentRegistered,
)
"""Every body there is; the schema snapshot and the golden messages are checked against this list."""
