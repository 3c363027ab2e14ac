"""Messages about agents that are lost, work that is taken back from them, and work that nobody can take."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from jetbridge.contracts.envelope import Body
from jetbridge.contracts.ids import AgentName, Epoch, WorkloadId
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind

REQUEUE_AREA = "workloads"
REQUEUE_OPERATION = "requeue"


class AgentHealthChanged(Body, frozen=True, kw_only=True):
    """The plane sentinel changed its mind about an agent (stream EVENTS)."""

    TYPE: ClassVar[str] = "agent.health-changed"

    agent: AgentName
    instance: str
    before: str
    after: str
    reason: str
    attested: bool = False


class WorkloadReleased(Body, frozen=True, kw_only=True):
    """
    A lease was taken back from a lost agent (stream EVENTS).

    ``action`` says what happens to the work: ``reroute`` or ``fail``.
    """

    TYPE: ClassVar[str] = "workload.released"

    workload_id: WorkloadId
    epoch: Epoch
    agent: AgentName
    queue: str
    coordinates: TaskCoordinates
    action: str
    reason: str


class LaneStarving(Body, frozen=True, kw_only=True):
    """A queue has work and no healthy agent that serves it (stream EVENTS)."""

    TYPE: ClassVar[str] = "lane.starving"

    queue: str
    waiting: int
    seconds: float
    reason: str


class LaneServed(Body, frozen=True, kw_only=True):
    """A queue starves no more: somebody serves it, or nothing waits there (stream EVENTS)."""

    TYPE: ClassVar[str] = "lane.served"

    queue: str
    waiting: int


class WorkloadStarving(Body, frozen=True, kw_only=True):
    """A workload waits and nobody can take it (stream EVENTS); once for each place it waits in."""

    TYPE: ClassVar[str] = "workload.starving"

    workload_id: WorkloadId
    submission: Epoch
    queue: str
    coordinates: TaskCoordinates
    reason: str


class WorkloadMoved(Body, frozen=True, kw_only=True):
    """A workload that nobody could take went to another queue (stream EVENTS)."""

    TYPE: ClassVar[str] = "workload.moved"

    workload_id: WorkloadId
    submission: Epoch
    queue: str
    to: str
    coordinates: TaskCoordinates
    reason: str


class RequeueWorkload(Body, frozen=True, kw_only=True):
    """
    Ask the bridge to put a released workload back into Airflow's queue (``rpc.workloads.requeue``).

    Asked again after a lost answer it finds the attempt gone and does nothing more.
    """

    TYPE: ClassVar[str] = "workload.requeue"

    workload_id: WorkloadId
    kind: WorkloadKind
    epoch: Epoch
    agent: AgentName
    reason: str


class RequeueOutcome(StrEnum):
    """What the bridge found. A reader takes an outcome it does not know for ``not-needed``."""

    REQUEUED = "requeued"
    NOT_NEEDED = "not-needed"


class WorkloadRequeued(Body, frozen=True, kw_only=True):
    """The bridge's answer: done, or why there was nothing to do."""

    TYPE: ClassVar[str] = "workload.requeued"

    outcome: str
    detail: str = ""


ALL_BODIES: tuple[type[Body], ...] = (
    AgentHealthChanged,
    WorkloadReleased,
    LaneStarving,
    LaneServed,
    WorkloadStarving,
    WorkloadMoved,
    RequeueWorkload,
    WorkloadRequeued,
)
