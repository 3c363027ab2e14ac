"""
Triggers: what triggerer agents and the gateway say to each other, and what gateways ask the bridge.

A *triggerer* here is one registration of an agent with the plane: the number of a row in Airflow's ``job``
table. Whoever was taken for lost gets a new number, and everything that names the old one is refused.
Events are numbered by the agent, from 1 for each triggerer, and posted in order. The plane keeps the
highest number it took together with what the events did, in one transaction: so an event that is posted
again, by whom and however late, does nothing.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from jetbridge.contracts.api import MAX_QUEUES, MAX_WAIT_SECONDS, Queue, Request, Response, hiding
from jetbridge.contracts.envelope import Body
from jetbridge.contracts.ids import AgentName
from jetbridge.contracts.messages import TaskCoordinates
from jetbridge.contracts.rpc import rpc_subject

AREA = "triggering"
ATTACH = rpc_subject(AREA, "attach")
SYNC = rpc_subject(AREA, "sync")
EVENTS = rpc_subject(AREA, "events")
DETACH = rpc_subject(AREA, "detach")
LEASE = rpc_subject(AREA, "lease")
COUNT = rpc_subject(AREA, "count")

MAX_CAPACITY = 10_000
"""Triggers on one agent; Airflow's own default is 1,000."""

MAX_EVENTS = 256
"""Events in one request."""

MAX_EVENT_BYTES = 256 * 1024
"""One event, encoded. It ends up in a column of Airflow's task instance, so it should be small anyway."""

MAX_TRACEBACK_LINES = 200
MAX_TRACEBACK_LINE = 4096

TriggererId = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TriggerId = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Sequence = Annotated[int, Meta(ge=1, le=2**62)]
Running = Annotated[tuple[TriggerId, ...], Meta(max_length=2 * MAX_CAPACITY)]
"""Twice the capacity: what is ending still counts as running while its successors are sent."""


class AttachRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents/{name}/triggerer``: begin to run triggers. An earlier triggerer of the agent ends."""


class AttachResponse(Response, frozen=True, kw_only=True):
    """
    The agent's number. Whoever is not heard of for ``lost_after_seconds`` loses it and its triggers.

    ``poll_wait_seconds`` is how long polls are held: each is a sign of life, so it is a fraction of that.
    """

    triggerer: TriggererId
    lost_after_seconds: float
    poll_wait_seconds: float


class TriggerPollRequest(Request, frozen=True, kw_only=True):
    """
    ``POST /v1/agents/{name}/triggers/poll``: hold until the plane wants other triggers run than ``running``.

    ``running`` are all triggers the agent has anything to do with: begun, ending, or with events that the
    plane has not acknowledged.
    """

    triggerer: TriggererId
    running: Running = ()
    wait_seconds: Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)] = 5.0


class TriggerStart(Response, frozen=True, kw_only=True):
    """
    One trigger to run.

    ``spec`` is Airflow's ``RunTrigger`` as JSON without the trigger's arguments. Those are in
    ``arguments``, as Airflow serialized them: JSON, or an envelope that only the agent's site can open.
    ``token`` authenticates this one trigger on ``/execution/*`` for as long as the agent holds it.
    ``log_path`` is where the trigger's log belongs, relative to the log store; empty when it has none.
    ``opened`` are the classes of data that policies let the agent send as they are.
    """

    trigger_id: TriggerId
    spec: msgspec.Raw
    arguments: str
    log_path: str = ""
    token: str = ""
    opened: tuple[str, ...] = ()

    __repr__ = hiding("arguments", "token")


class TriggerPollResponse(Response, frozen=True, kw_only=True):
    """
    What to change. All may be empty.

    ``cancel`` are triggers nobody waits for any more; ``release`` are those another triggerer runs now, so
    that nothing they watch over may be ended with them.
    """

    start: tuple[TriggerStart, ...] = ()
    cancel: tuple[TriggerId, ...] = ()
    release: tuple[TriggerId, ...] = ()


class TriggerEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    What became of a trigger: it fired (``event``), or it ended without firing (``traceback``).

    ``event`` is Airflow's trigger event as its runner sends it to its supervisor: MessagePack, because a
    payload may hold times and bytes, which JSON cannot tell from text.
    """

    sequence: Sequence
    trigger_id: TriggerId
    event: Annotated[bytes, Meta(max_length=MAX_EVENT_BYTES)] | None = None
    traceback: (
        Annotated[
            tuple[Annotated[str, Meta(max_length=MAX_TRACEBACK_LINE)], ...],
            Meta(max_length=MAX_TRACEBACK_LINES),
        ]
        | None
    ) = None


Events = Annotated[tuple[TriggerEvent, ...], Meta(min_length=1, max_length=MAX_EVENTS)]


class TriggerEventsRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents/{name}/triggers/events``: in ascending order of ``sequence``; gaps are fine."""

    triggerer: TriggererId
    events: Events


class SetAside(msgspec.Struct, frozen=True, kw_only=True):
    """An event that changed nothing, for good, and why."""

    sequence: Sequence
    reason: str


class TriggerEventsResponse(Response, frozen=True, kw_only=True):
    """The plane has all events up to ``taken``, now or from an earlier try, except those set aside."""

    taken: Sequence
    set_aside: tuple[SetAside, ...] = ()


class DetachRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents/{name}/triggerer/end``: run no more triggers; others take them over at once."""

    triggerer: TriggererId


class DetachResponse(Response, frozen=True, kw_only=True):
    """The triggerer has ended, now or before."""


class Attach(Body, frozen=True, kw_only=True):
    """``rpc.triggering.attach``: a process of an agent begins."""

    TYPE: ClassVar[str] = "triggering.attach"

    agent: AgentName
    instance: str


class Attached(Body, frozen=True, kw_only=True):
    """Answer to :class:`Attach`."""

    TYPE: ClassVar[str] = "triggering.attached"

    triggerer: TriggererId
    lost_after_seconds: float


class Sync(Body, frozen=True, kw_only=True):
    """
    ``rpc.triggering.sync``: asks what an agent should run.

    ``beat`` says that the agent itself was just heard of; a gateway that merely asks again leaves it out.
    """

    TYPE: ClassVar[str] = "triggering.sync"

    agent: AgentName
    triggerer: TriggererId
    capacity: Annotated[int, Meta(ge=0, le=MAX_CAPACITY)]
    queues: Annotated[tuple[Queue, ...], Meta(max_length=MAX_QUEUES)] = ()
    running: Running = ()
    beat: bool = False


class Synced(Body, frozen=True, kw_only=True):
    """Answer to :class:`Sync`; see :class:`TriggerPollResponse`."""

    TYPE: ClassVar[str] = "triggering.synced"

    start: tuple[TriggerStart, ...] = ()
    cancel: tuple[TriggerId, ...] = ()
    release: tuple[TriggerId, ...] = ()


class Submit(Body, frozen=True, kw_only=True):
    """``rpc.triggering.events``: what became of triggers."""

    TYPE: ClassVar[str] = "triggering.submit"

    agent: AgentName
    triggerer: TriggererId
    events: Events


class Submitted(Body, frozen=True, kw_only=True):
    """Answer to :class:`Submit`; see :class:`TriggerEventsResponse`."""

    TYPE: ClassVar[str] = "triggering.submitted"

    taken: Sequence
    set_aside: tuple[SetAside, ...] = ()


class Detach(Body, frozen=True, kw_only=True):
    """``rpc.triggering.detach``: an agent ends in order."""

    TYPE: ClassVar[str] = "triggering.detach"

    agent: AgentName
    triggerer: TriggererId


class Detached(Body, frozen=True, kw_only=True):
    """Answer to :class:`Detach`."""

    TYPE: ClassVar[str] = "triggering.detached"


class Lease(Body, frozen=True, kw_only=True):
    """``rpc.triggering.lease``: asks whether an agent holds a trigger, and whose it is."""

    TYPE: ClassVar[str] = "triggering.lease"

    agent: AgentName
    triggerer: TriggererId
    trigger_id: TriggerId


class Leased(Body, frozen=True, kw_only=True):
    """
    Answer to :class:`Lease`.

    ``task_instance`` is the id of the task instance that waits for the trigger, ``coordinates`` where it
    belongs and ``queue`` which one it is queued in; empty for the trigger of an asset or a callback. An older
    bridge sends no coordinates.
    """

    TYPE: ClassVar[str] = "triggering.leased"

    held: bool
    task_instance: str | None = None
    coordinates: TaskCoordinates | None = None
    queue: str = ""


class Count(Body, frozen=True, kw_only=True):
    """``rpc.triggering.count``: asks how many triggers triggerers of these queues have or would take."""

    TYPE: ClassVar[str] = "triggering.count"

    queues: Annotated[tuple[Queue, ...], Meta(max_length=MAX_QUEUES)] = ()


class Counted(Body, frozen=True, kw_only=True):
    """Answer to :class:`Count`. ``assigned`` ones have a triggerer, alive or not; ``waiting`` ones none."""

    TYPE: ClassVar[str] = "triggering.counted"

    assigned: Annotated[int, Meta(ge=0)]
    waiting: Annotated[int, Meta(ge=0)]


API_BODIES: tuple[type[msgspec.Struct], ...] = (
    AttachRequest,
    AttachResponse,
    TriggerPollRequest,
    TriggerPollResponse,
    TriggerStart,
    TriggerEvent,
    TriggerEventsRequest,
    TriggerEventsResponse,
    SetAside,
    DetachRequest,
    DetachResponse,
)

ALL_BODIES: tuple[type[Body], ...] = (
    Attach,
    Attached,
    Sync,
    Synced,
    Submit,
    Submitted,
    Detach,
    Detached,
    Lease,
    Leased,
    Count,
    Counted,
)
