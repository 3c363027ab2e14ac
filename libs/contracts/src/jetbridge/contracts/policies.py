"""
Policies: what a deployment decides about failover and about what crosses the boundary.

One record per scope: the whole deployment, one site, one Airflow queue. Each field that a record leaves out
is decided by the next wider scope, and at last by the built-in defaults. A queue is narrower than a site:
it belongs to the team that names it in its Dags, while a site serves many.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from jetbridge.contracts.ids import InvalidIdError
from jetbridge.contracts.records import OnAgentLost

DEPLOYMENT = "deployment"
"""The scope of what holds everywhere."""

MAX_FALLBACK_QUEUES = 8
MAX_WAIT_FOR_AGENT_SECONDS = 7 * 24 * 3600.0
"""A week. A machine that is away for longer does not come back by itself."""

STARVING_AFTER_SECONDS = 25.0
"""
A lane with work and nobody to take it is reported after this long. Within 30 s (design section 5), and long
enough for an agent that is restarted, or that has only just registered, to show that it is well.
"""

WAIT_SECONDS = 3600.0
"""How long ``wait`` waits when a policy says ``wait`` and no time."""

_NARROW_SCOPE = re.compile(r"(site|queue):[^\x00-\x1f\x7f]{1,256}")

QueueName = Annotated[str, Meta(min_length=1, max_length=256)]


class WhenStarving(StrEnum):
    """What happens to work that nobody can take."""

    REPORT = "report"
    MOVE = "move"


class FailoverPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What becomes of work whose agent, or whose every agent, is away. None leaves it to a wider scope.

    ``wait_seconds`` counts from the agent's last heartbeat and matters to ``on_agent_lost: wait`` alone.
    ``fallback_queues`` are tried in order, by ``when_starving: move``, after ``starving_after_seconds``.
    """

    on_agent_lost: OnAgentLost | None = None
    wait_seconds: Annotated[float, Meta(gt=0, le=MAX_WAIT_FOR_AGENT_SECONDS)] | None = None
    fallback_queues: Annotated[tuple[QueueName, ...], Meta(max_length=MAX_FALLBACK_QUEUES)] | None = None
    starving_after_seconds: Annotated[float, Meta(ge=1)] | None = None
    when_starving: WhenStarving | None = None


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The policy of one scope: ``deployment``, ``site:<name>`` or ``queue:<name>``.

    ``boundary`` maps a class of data to the rule for it. ``changed_at`` and ``changed_by`` are for people.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    scope: str
    failover: FailoverPolicy = FailoverPolicy()
    boundary: dict[str, str] = {}
    changed_at: datetime
    changed_by: str = ""


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for one queue and site, with nothing left open; see :class:`FailoverPolicy`."""

    on_agent_lost: OnAgentLost = OnAgentLost.REROUTE
    wait_seconds: float = WAIT_SECONDS
    fallback_queues: tuple[str, ...] = ()
    starving_after_seconds: float = STARVING_AFTER_SECONDS
    when_starving: WhenStarving = WhenStarving.REPORT


def site_scope(site: str) -> str:
    """Return the scope of one site."""
    return f"site:{site}"


def queue_scope(queue: str) -> str:
    """Return the scope of one Airflow queue."""
    return f"queue:{queue}"


def policy_key(scope: str) -> str:
    """Return the KV key of a scope; a queue may be called anything, NATS takes few characters."""
    return scope if scope == DEPLOYMENT else hashlib.sha256(scope.encode()).hexdigest()


def check_scope(text: str) -> str:
    """Return a scope as it is; raises :class:`InvalidIdError` when it has none of the three forms."""
    if text != DEPLOYMENT and not _NARROW_SCOPE.fullmatch(text):
        raise InvalidIdError(f"a scope is '{DEPLOYMENT}', 'site:NAME' or 'queue:NAME', not {text!r}")
    return text


def scopes(queue: str, site: str = "") -> tuple[str, ...]:
    """Return the scopes that decide about a queue at a site, narrowest first."""
    return (queue_scope(queue), *((site_scope(site),) if site else ()), DEPLOYMENT)


def failover(policies: Mapping[str, PolicyRecord], queue: str, site: str = "") -> Failover:
    """Return what holds for work of a queue, at a site if it is at one."""
    decided: dict[str, Any] = {}
    for record in _narrowest_first(policies, queue, site):
        for field in Failover.__struct_fields__:
            value = getattr(record.failover, field)
            if value is not None:
                decided.setdefault(field, value)
    return Failover(**decided)


def boundary_rule(policies: Mapping[str, PolicyRecord], data: str, queue: str, site: str = "") -> str | None:
    """Return the rule for a class of data, or None where no policy says anything: then the default holds."""
    for record in _narrowest_first(policies, queue, site):
        if data in record.boundary:
            return record.boundary[data]
    return None


def _narrowest_first(policies: Mapping[str, PolicyRecord], queue: str, site: str) -> Iterator[PolicyRecord]:
    return (policies[scope] for scope in scopes(queue, site) if scope in policies)


ALL_RECORDS: tuple[type[msgspec.Struct], ...] = (PolicyRecord,)
"""Every record here; the schema snapshot is checked against this list."""
