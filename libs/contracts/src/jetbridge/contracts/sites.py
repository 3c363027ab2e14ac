"""
What the sentinel of a site says: what it sees of the agents there, and that one of them is dead.

Bodies of the Remote Execution API, and the record in which the plane keeps the latest report of a sentinel.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from jetbridge.contracts.api import Request, Response, ShortText
from jetbridge.contracts.ids import AgentName

ROLE: Literal["sentinel"] = "sentinel"

MAX_SEEN = 500
"""Agents in one report; a site with more names the unhealthy ones first."""

MAX_CHECKS = 16

SITE_REPORT_SECONDS = 120
"""Life of a report that is not repeated. Sentinels repeat theirs every 30 s."""

Instance = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
Word = Annotated[str, Meta(max_length=32)]
Detail = Annotated[str, Meta(max_length=200)]


class AgentSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One agent as it looks from outside.

    ``state`` is a word such as ``running``, ``pending`` or ``ended``; ``detail`` says why, for people.
    """

    agent: AgentName
    instance: str = ""
    role: Word = ""
    healthy: bool
    state: Word
    detail: Detail = ""


class CheckSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether something that the agents of the site need answers, for example the XCom store."""

    name: Word
    ok: bool
    detail: Detail = ""


class SiteReportRequest(Request, frozen=True, kw_only=True):
    """``POST /v1/agents/{name}/site``: what a sentinel sees of its site now. It replaces the last report."""

    agents: Annotated[tuple[AgentSeen, ...], Meta(max_length=MAX_SEEN)] = ()
    checks: Annotated[tuple[CheckSeen, ...], Meta(max_length=MAX_CHECKS)] = ()


class SiteReportResponse(Response, frozen=True, kw_only=True):
    """The report was kept."""


class AttestDeathRequest(Request, frozen=True, kw_only=True):
    """
    ``POST /v1/agents/{name}/deaths``: a sentinel saw that a process of an agent is gone, with all it started.

    What the agent held runs elsewhere at once, so this must be true. ``name`` is the sentinel's own.
    """

    agent: AgentName
    instance: Instance
    reason: ShortText = ""


class AttestDeathResponse(Response, frozen=True, kw_only=True):
    """The plane acts on it."""


class SiteRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The latest report of a sentinel, by the sentinel's name. It goes by itself when it is not repeated.

    ``left_out`` counts agents for which the record had no room.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    site: str
    sentinel: AgentName
    at: datetime
    agents: tuple[AgentSeen, ...] = ()
    checks: tuple[CheckSeen, ...] = ()
    left_out: int = 0


API_BODIES: tuple[type[msgspec.Struct], ...] = (
    AgentSeen,
    CheckSeen,
    SiteReportRequest,
    SiteReportResponse,
    AttestDeathRequest,
    AttestDeathResponse,
)

ALL_RECORDS: tuple[type[msgspec.Struct], ...] = (SiteRecord,)
