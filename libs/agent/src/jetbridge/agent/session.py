"""
One agent's standing with the gateway: registered, with a credential that is renewed and replaced.

Every call here is repeated until it is answered (see ``link``). A refused or expired credential makes
the next try register again first, with the token file read anew.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog

from jetbridge.agent.errors import (
    AgentEndedError,
    CredentialRefusedError,
    GatewayError,
    TokenFileError,
    TokenRefusedError,
)
from jetbridge.agent.gateway_client import ANSWER_TIMEOUT_SECONDS, GatewayClient
from jetbridge.agent.link import Link
from jetbridge.agent.token_file import read_token
from jetbridge.contracts.api import (
    FENCE_SHARE,
    AcceptResponse,
    GoodbyeRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    PollRequest,
    PollResponse,
    RegisterRequest,
    RegisterResponse,
    ReportRequest,
    ReportResponse,
)

log = structlog.get_logger(__name__)
T = TypeVar("T")

HEARTBEAT_JITTER = 0.2
"""Share of the interval by which a heartbeat may come early or late, so that agents spread out."""


SHORTEST_HEARTBEAT_SECONDS = 2.5
"""Any try of a heartbeat gets that long: the gateway takes up to two seconds to have it written."""


def jittered(interval_seconds: float) -> float:
    """Return an interval of heartbeats, or of what is sent as often, with its jitter."""
    return interval_seconds * random.uniform(1 - HEARTBEAT_JITTER, 1 + HEARTBEAT_JITTER)  # noqa: S311 - not a secret


def heartbeat_limit_seconds(plan: RegisterResponse) -> float:
    """Return how long a try may take so that two of them fit in before the agent kills what it runs."""
    latest = (1 + HEARTBEAT_JITTER) * plan.heartbeat_interval_seconds
    spare = FENCE_SHARE * plan.lease_seconds - latest
    return min(ANSWER_TIMEOUT_SECONDS, max(SHORTEST_HEARTBEAT_SECONDS, spare / 2))


def new_instance() -> str:
    """Return a value for ``RegisterRequest.instance``: it tells this process from the one before it."""
    return secrets.token_hex(16)


class Session:
    """
    Calls to the gateway in the name of one agent process.

    :param identity: what is said at each registration
    :param token_file: read at each registration
    """

    def __init__(
        self, client: GatewayClient, link: Link, identity: RegisterRequest, token_file: Path
    ) -> None:
        self._client = client
        self._link = link
        self._identity = identity
        self._token_file = token_file
        self._registering = asyncio.Lock()
        self._credential: str | None = None
        self._expires_at = 0.0
        self._plan: RegisterResponse | None = None

    @property
    def plan(self) -> RegisterResponse:
        """How the plane wants this agent to behave, as of the last registration."""
        if self._plan is None:
            raise RuntimeError("the agent has not registered yet")
        return self._plan

    async def register(self) -> RegisterResponse:
        """
        Register if there is no valid credential.

        Raises :class:`TokenRefusedError`, :class:`UnknownContractError` or another
        :class:`RequestRefusedError` when the gateway will never have this agent.
        """
        await self._link.until_answered("register", self._valid_credential)
        return self.plan

    async def heartbeat(
        self, body: Callable[[], HeartbeatRequest]
    ) -> tuple[HeartbeatRequest, HeartbeatResponse]:
        """
        Send a heartbeat, made anew for each try, and return it with its answer.

        A try is given up soon, and the next one takes another connection: after an outage TCP may sit on
        the old one about as long again as the outage was, and the leases would end meanwhile.
        """

        async def call(credential: str) -> tuple[HeartbeatRequest, HeartbeatResponse]:
            request, limit_seconds = body(), heartbeat_limit_seconds(self.plan)
            answer = await self._client.heartbeat(self._identity.name, credential, request, limit_seconds)
            if answer.credential and answer.credential_expires_in_seconds and self._credential == credential:
                self._use(answer.credential, answer.credential_expires_in_seconds)
            return request, answer

        return await self._call("heartbeat", call, longest_pause_seconds=SHORTEST_HEARTBEAT_SECONDS)

    async def poll(self, body: PollRequest) -> PollResponse:
        """Ask for work."""
        return await self._call("poll", lambda it: self._client.poll(self._identity.name, it, body))

    async def goodbye(self, reason: str, limit_seconds: float) -> bool:
        """
        Say that this process ends and nothing of it runs any more, if that can be said in time.

        Nothing depends on it: unsaid, the plane learns it from a sentinel or from silence. Never raises, so
        that it can be the last thing an agent does; says whether the plane knows.
        """
        if self._plan is None:
            return False
        body = GoodbyeRequest(reason=reason)
        try:
            async with asyncio.timeout(limit_seconds):
                await self._call("goodbye", lambda it: self._client.goodbye(self._identity.name, it, body))
        except AgentEndedError:
            return True  # an earlier try, whose answer was lost
        except (TimeoutError, GatewayError) as error:
            log.info("the plane was not told of the end", reason=str(error) or "no answer in time")
            return False
        return True

    async def accept(self, lease: str) -> AcceptResponse:
        """Take an offer; raises :class:`LeaseLostError` when it is not this agent's any more."""
        return await self._call("accept", lambda it: self._client.accept(lease, it))

    async def report(self, lease: str, body: ReportRequest) -> ReportResponse:
        """Report an end; raises :class:`LeaseLostError` when the lease is not this agent's any more."""
        return await self._call("report", lambda it: self._client.report(lease, it, body))

    async def execution(self, attempt: Callable[[GatewayClient], Awaitable[T]]) -> T:
        """Make a call of the Execution API with a lease's token; repeated until it is answered."""
        return await self._link.until_answered("execution", lambda: attempt(self._client))

    async def _call(
        self,
        operation: str,
        call: Callable[[str], Awaitable[T]],
        longest_pause_seconds: float = float("inf"),
    ) -> T:
        async def attempt() -> T:
            credential = await self._valid_credential()
            try:
                return await call(credential)
            except CredentialRefusedError:
                if self._credential == credential:
                    self._credential = None
                raise

        return await self._link.until_answered(operation, attempt, longest_pause_seconds)

    async def _valid_credential(self) -> str:
        # Of several calls that find no credential, one registers and the others use what it got.
        async with self._registering:
            if self._credential is None or time.monotonic() >= self._expires_at:
                await self._register()
            if self._credential is None:  # pragma: no cover - for the type checker
                raise AssertionError
            return self._credential

    async def _register(self) -> None:
        token = read_token(self._token_file)
        try:
            plan = await self._client.register(token, self._identity)
        except TokenRefusedError:
            if read_token(self._token_file) != token:
                raise TokenFileError("the token file was replaced during the registration") from None
            raise
        self._plan = plan
        self._use(plan.credential, plan.credential_expires_in_seconds)
        log.info("registered with the gateway", agent=plan.agent, token_id=token.id)

    def _use(self, credential: str, expires_in_seconds: float) -> None:
        self._credential = credential
        self._expires_at = time.monotonic() + expires_in_seconds
