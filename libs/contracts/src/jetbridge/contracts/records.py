"""
Values in the KV buckets: the durable state of workloads, agents and tokens.

Records carry a ``version`` of their own; a reader that meets a newer one leaves it alone.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from jetbridge.contracts.ids import AgentName, WorkloadId
from jetbridge.contracts.messages import Outcome, TaskCoordinates, WorkloadKind
from jetbridge.contracts.scopes import TokenScopes


class WorkloadState(StrEnum):
    """
    The life of a workload's record: submitted → offered → leased → finished, then deleted.

    A lease whose agent was lost goes to *released* instead: nobody may run it any more, and the bridge
    puts its task back into Airflow's queue. Every arrow is one compare-and-set on the record's revision,
    so of two racing writers one wins and the other learns it.
    """

    SUBMITTED = "submitted"
    OFFERED = "offered"
    LEASED = "leased"
    FINISHED = "finished"
    RELEASED = "released"


class OnAgentLost(StrEnum):
    """
    What happens to a running workload whose agent is lost (design section 5).

    ``wait`` is for long work that cannot be repeated: its lease goes on past the loss, up to a limit.
    """

    REROUTE = "reroute"
    FAIL = "fail"
    WAIT = "wait"


class WorkloadRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One workload that the scheduler handed over and has not yet seen the end of.

    ``submission`` is the revision of the record's first write of this life; 0 in that write itself,
    which cannot know it. ``epoch`` is the revision of the offer that was accepted; 0 before.
    ``agent`` is who was offered, holds or held it, ``instance`` which process of that name. ``ack`` is
    the JetStream reply subject that acknowledges the delivery behind an offer: whichever gateway takes
    the accept can use it. ``changed_at`` is the time of the last write, by the writer's clock, for people.

    ``on_agent_lost`` is what the task asked for, None if nothing; from the lease on it is what holds for
    this lease, whatever becomes of the policies. So is ``wait_seconds``. ``lease_seconds`` is how long the
    lease is good without contact; 0 for one that lasts as long as leases do, which all but ``wait`` leases
    do.

    ``queue`` is the task's, and decides which policies hold. ``moved_to`` is the fallback queue in whose lane
    the work is instead, empty if it never was moved. ``starving`` says that the task's history tells that
    nobody could take it.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    workload_id: WorkloadId
    kind: WorkloadKind
    state: WorkloadState
    queue: str
    coordinates: TaskCoordinates
    changed_at: datetime
    submission: int = 0
    epoch: int = 0
    agent: AgentName | None = None
    instance: str = ""
    on_agent_lost: OnAgentLost | None = None
    wait_seconds: float = 0.0
    lease_seconds: float = 0.0
    moved_to: str = ""
    starving: bool = False
    ack: str | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    reason: str = ""

    @property
    def waits_in(self) -> str:
        """Return the queue whose agents may take it."""
        return self.moved_to or self.queue


class LaneRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A queue with work that nobody can take. It goes when somebody can, or nothing waits there any more.

    ``queue`` is as Airflow names it; ``waiting`` is how many workloads waited when it was found, ``since``
    when that was, by the router's clock. ``told`` says that the event about it was published.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    queue: str
    since: datetime
    waiting: int
    reason: str
    told: bool = False


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One registered agent. Volatile facts (last heartbeat, free slots) are in Redis, not here.

    ``instance`` is chosen by the agent's process at its start: a second process that registers under
    the same name replaces the first, whose credential then no longer matches.
    ``log_store`` says where the agent's task logs end up, for people (no credentials).
    ``draining`` is set by the first heartbeat of the process that says so.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    name: AgentName
    instance: str
    role: str
    queues: tuple[str, ...]
    slots: int
    labels: dict[str, str] = {}
    software_version: str = ""
    site: str = ""
    log_store: str = ""
    token_id: str
    registered_at: datetime
    draining: bool = False


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One agent token. Only the SHA-256 of its secret is kept.

    A plain hash is enough: the secret is 256 random bits, so there is nothing to guess and a slow
    hash would only slow the gateway. After a rotation ``previous_sha256`` is that of the secret before, taken
    until ``previous_until``. With ``certificate_sha256`` the token is taken only over a connection with
    exactly that client certificate: the hash of its DER form, in lower-case hex.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    id: str
    name: str
    secret_sha256: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    scopes: TokenScopes = TokenScopes()
    rotated_at: datetime | None = None
    previous_sha256: str = ""
    previous_until: datetime | None = None
    certificate_sha256: str = ""


class TokenUseRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    When a token, or a credential that it was exchanged for, was last used, and from which address.

    Written at most once a minute by each gateway. For people; lost with NATS' memory.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    used_at: datetime
    address: str


class Health(StrEnum):
    """
    What the plane makes of an agent's silence (design section 5).

    *lost* means more than silent: its leases are over, on its own clock too, so its work may run elsewhere.
    """

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    LOST = "lost"
    GONE = "gone"


class HealthRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The health of one process of one agent.

    The plane sentinel writes what it infers from silence. A gateway writes what it was told: that a sentinel
    at the site saw the process end (*lost*), or that the process itself said goodbye (*gone*). ``attested``
    tells the one from the other and is for ever: whatever still speaks for such a process is refused.
    *gone* without it was silent so long that it is forgotten. ``silent_seconds`` is the silence that was
    proven when this was written, by the sentinel's own clock.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    agent: AgentName
    instance: str
    health: Health
    since: datetime
    reason: str = ""
    attested: bool = False
    silent_seconds: float = 0.0


class DrainOrder(msgspec.Struct, frozen=True, kw_only=True):
    """
    The wish that one process of an agent ends.

    Bound to ``instance``, so that whatever is started in its place is cordoned and does not end as well.
    What still runs at ``hand_over_at`` (the plane's clock) is handed over.
    """

    instance: str
    hand_over_at: datetime


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What an operator wants of an agent, by the agent's name. While there is one, it is cordoned.

    Level-triggered: gateways act on what the record says now, so nothing is lost with a connection, a gateway
    or the agent's process, and the same command twice changes nothing.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    agent: AgentName
    since: datetime
    reason: str = ""
    drain: DrainOrder | None = None


ALL_RECORDS: tuple[type[msgspec.Struct], ...] = (
    WorkloadRecord,
    LaneRecord,
    AgentRecord,
    TokenRecord,
    TokenUseRecord,
    HealthRecord,
    OrderRecord,
)
"""Every record there is; the schema snapshot is checked against this list."""
