"""
Bodies of the Remote Execution API, ``/v1`` (agents ⇄ gateway).

Requests refuse unknown fields and values out of bounds, so that a mistake is a 400 that names it.
Responses are read leniently by agents: a newer gateway may add fields. ``contract`` is the version of
this module a request was made for; a gateway that does not speak it answers 422 ``unknown-contract``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from jetbridge.contracts.ids import AgentName, LeaseId
from jetbridge.contracts.messages import Outcome, TaskCoordinates, WorkloadKind

CONTRACT = 1
"""Version of these bodies. Raised when an older gateway could no longer understand an agent."""

MAX_SLOTS = 10_000
MAX_QUEUES = 256
FENCE_SHARE = 0.8
"""
Share of ``lease_seconds``, counted from the sending of the last recorded heartbeat, after which an agent
kills what it still runs. The rest is for the killing: the plane gives the work away when all is over.
"""

MIN_LEASE_SECONDS = 15.0
"""Shorter leases would leave less than three seconds for the killing, and no room for a lost heartbeat."""

MAX_WAIT_SECONDS = 60
"""A poll is held at most this long; proxies commonly cut idle requests after 60 s or more."""

Queue = Annotated[str, Meta(min_length=1, max_length=256)]
Slots = Annotated[int, Meta(ge=0, le=MAX_SLOTS)]
Label = Annotated[str, Meta(min_length=1, max_length=63)]
ShortText = Annotated[str, Meta(max_length=256)]
Role = Literal["worker", "dag-processor", "triggerer", "sentinel"]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of request bodies."""

    contract: Annotated[int, Meta(ge=1)] = CONTRACT


class Response(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of response bodies."""


def hiding(*names: str) -> Callable[[msgspec.Struct], str]:
    """Return a ``__repr__`` that shows that the named fields are set, and not to what."""

    def represent(struct: msgspec.Struct) -> str:
        shown = {
            name: "***" if name in names and value else repr(value)
            for name, value in msgspec.structs.asdict(struct).items()
        }
        return f"{type(struct).__name__}({', '.join(f'{name}={text}' for name, text in shown.items())})"

    return represent


class RegisterRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents``: who the agent is. Authenticated with the agent token."""

    name: AgentName
    instance: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    role: Role
    queues: Annotated[tuple[Queue, ...], Meta(max_length=MAX_QUEUES)] = ()
    slots: Slots = 0
    labels: Annotated[dict[Label, ShortText], Meta(max_length=64)] = {}
    software_version: ShortText = ""
    site: ShortText = ""
    log_store: Annotated[str, Meta(max_length=1024)] = ""


class RegisterResponse(Response, frozen=True, kw_only=True):
    """
    The credential for every other call, and how the plane wants the agent to behave.

    ``credential`` is a bearer token bound to this agent and process, renewed in heartbeat answers.
    """

    agent: AgentName
    credential: str
    credential_expires_in_seconds: float
    heartbeat_interval_seconds: float
    poll_wait_seconds: float
    lease_seconds: float

    __repr__ = hiding("credential")


class HeartbeatRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents/{name}/heartbeat``: what the agent believes."""

    free_slots: Slots
    leases: Annotated[tuple[LeaseId, ...], Meta(max_length=MAX_SLOTS)] = ()
    draining: bool = False


class Orders(Response, frozen=True, kw_only=True):
    """
    What an operator wants of the agent, as it is now; repeated in every answer until it is so no more.

    ``cordoned``: no new work is offered. ``drain``: finish what runs and stop, for good;
    ``hand_over_in_seconds`` from now, what still runs is given up, so that it runs elsewhere.
    """

    cordoned: bool = False
    drain: bool = False
    hand_over_in_seconds: float = 0.0


class HeartbeatResponse(Response, frozen=True, kw_only=True):
    """
    What is really so. A lease the agent named and ``leases`` lacks is lost: stop it.

    ``recorded`` says that the plane will know of this heartbeat; only then does it prolong the leases.
    ``credential`` is set when the old one is past half its life. ``orders`` is None when there are none.
    """

    orders: Orders | None = None
    leases: tuple[LeaseId, ...] = ()
    recorded: bool = False
    credential: str | None = None
    credential_expires_in_seconds: float | None = None

    __repr__ = hiding("credential")


class PollRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents/{name}/poll``: hold this request until there is something to say."""

    free_slots: Slots
    leases: Annotated[tuple[LeaseId, ...], Meta(max_length=MAX_SLOTS)] = ()
    wait_seconds: Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)] = 30.0


class Offer(Response, frozen=True, kw_only=True):
    """
    Work the agent may accept; nothing may start before the accept is confirmed.

    ``spec`` is Airflow's workload as JSON, without a token. An offer that is not accepted within
    ``expires_in_seconds`` is made to somebody else.
    """

    lease: LeaseId
    kind: WorkloadKind
    queue: str
    coordinates: TaskCoordinates
    expires_in_seconds: float
    traceparent: str | None = None
    spec: msgspec.Raw


class PollResponse(Response, frozen=True, kw_only=True):
    """``offers`` to accept; ``stop`` names leases the agent no longer holds; ``orders``. All may be empty."""

    offers: tuple[Offer, ...] = ()
    stop: tuple[LeaseId, ...] = ()
    orders: Orders | None = None


class AcceptRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/leases/{lease}/accept``."""


class AcceptResponse(Response, frozen=True, kw_only=True):
    """
    The confirmation. ``token`` authenticates this one lease on ``/execution/*`` and nothing else.

    It has no life of its own: it is worth what the lease is worth, and dies with it. ``lease_seconds`` is
    set when this lease may go on for longer without contact than the agent's others (``wait``).
    ``opened`` are the classes of data that policies let this workload send as they are; see
    ``contracts.boundary``.
    """

    lease: LeaseId
    token: str
    lease_seconds: float | None = None
    opened: tuple[str, ...] = ()

    __repr__ = hiding("token")


class ReportRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/leases/{lease}/report``: how the workload's process ended."""

    outcome: Outcome
    exit_code: Annotated[int, Meta(ge=-255, le=255)] | None = None
    reason: Annotated[str, Meta(max_length=1024)] = ""


class ReportResponse(Response, frozen=True, kw_only=True):
    """The report was taken, now or by an earlier try of the same request."""

    lease: LeaseId


class DepthResponse(Response, frozen=True, kw_only=True):
    """
    ``GET /v1/depth``: how much there is to do for an agent of a role with some queues.

    ``value`` is all of it, ``waiting`` and ``running``: what an autoscaler divides by an agent's capacity.
    ``oldest_seconds`` is how long the workload that waits longest has waited; 0 for triggers.
    """

    value: Annotated[int, Meta(ge=0)]
    waiting: Annotated[int, Meta(ge=0)]
    running: Annotated[int, Meta(ge=0)]
    oldest_seconds: float = 0.0


class GoodbyeRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents/{name}/goodbye``: this process ends, and nothing that it started runs any more."""

    reason: ShortText = ""


class GoodbyeResponse(Response, frozen=True, kw_only=True):
    """The plane knows, now or from an earlier try; what the agent still held runs elsewhere."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error, as an RFC 9457 problem document. ``detail`` says what to do."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""


ALL_BODIES: tuple[type[msgspec.Struct], ...] = (
    RegisterRequest,
    RegisterResponse,
    Orders,
    HeartbeatRequest,
    HeartbeatResponse,
    PollRequest,
    PollResponse,
    Offer,
    AcceptRequest,
    AcceptResponse,
    ReportRequest,
    ReportResponse,
    DepthResponse,
    GoodbyeRequest,
    GoodbyeResponse,
    Problem,
)
"""Every body of the API; the schema snapshot is checked against this list."""
