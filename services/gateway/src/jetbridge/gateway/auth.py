"""
Who is asking. Every request is checked against the mirrors of tokens and agents, with no look-up.

A mirror lags its bucket by milliseconds, so its *no* is confirmed by one read before it is believed: the
token or the agent may have been written through another gateway just now. Its *yes* is believed; a
revocation therefore acts as soon as the mirror has it, well within a second.

================================================  =========================================
case                                              answer
================================================  =========================================
no, malformed, unknown, wrong, expired, revoked   401, always the same; too many from one address: 429
from an address or without a certificate …        403: only somebody who has the token gets to know
agent's record gone                               401: register anew
agent's record names another instance             409 agent-replaced: a newer process took over
its health record says that the process ended     409 agent-ended: its work may run elsewhere by now
NATS cannot be asked and the mirror says no       503: nothing is known, so nothing is decided
================================================  =========================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from starlette.types import Scope

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.health import has_ended, health_key
from jetbridge.bus.tokens import hash_secret, is_alive, is_valid
from jetbridge.contracts.ids import AgentToken, InvalidIdError
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.records import AgentRecord, HealthRecord, TokenRecord
from jetbridge.gateway.budget import Budget
from jetbridge.gateway.credentials import AgentClaims, Credentials, LeaseClaims, TriggerClaims
from jetbridge.gateway.known import Known
from jetbridge.gateway.origin import origin_of
from jetbridge.gateway.problems import ProblemError, unauthenticated, unavailable
from jetbridge.gateway.scope_rules import check_origin
from jetbridge.gateway.token_use import TokenUse

_NOBODY = TokenRecord(
    id="",
    name="",
    secret_sha256=hash_secret("no token has this secret"),
    created_at=datetime.min.replace(tzinfo=UTC),
    expires_at=datetime.min.replace(tzinfo=UTC),
)
_TOKEN_READS_PER_SECOND = 20.0
"""Reads spent on tokens that are wrong by the mirror. Anybody can make such up, so the reads are rationed."""

_MIRROR_LAG_SECONDS = 0.25
"""With no reads left, a wrong token is given the time in which the mirror would learn of a new one."""

T = TypeVar("T")
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated agent process."""

    claims: AgentClaims
    record: AgentRecord
    token: TokenRecord

    @property
    def name(self) -> str:
        """Return the agent's name."""
        return self.record.name


class Gatekeeper:
    """Turns a request's ``Authorization`` and origin into who asks, or raises the problem to answer with."""

    def __init__(
        self,
        credentials: Credentials,
        tokens: Known[TokenRecord],
        agents: Known[AgentRecord],
        health: Known[HealthRecord],
        uses: TokenUse,
    ) -> None:
        self.credentials = credentials
        self.tokens = tokens
        self.agents = agents
        self.health = health
        self._uses = uses
        self._reads = Budget(_TOKEN_READS_PER_SECOND)

    async def registrant(self, scope: Scope) -> TokenRecord:
        """Return the record of a valid agent token; raises 401, 403 or 503."""
        record = await self._valid_token(scope["headers"])
        self._admit(record, scope)
        return record

    def _admit(self, token: TokenRecord, scope: Scope) -> None:
        origin = origin_of(scope)
        check_origin(token, origin)
        self._uses.note(token.id, origin.address)

    async def _valid_token(self, headers: Headers) -> TokenRecord:
        try:
            token = AgentToken.parse(bearer(headers))
        except InvalidIdError as exc:
            raise unauthenticated() from exc
        record = _if_valid(self._seen(token.id), token) or _if_valid(await self._newest(token.id), token)
        if record is None:
            raise unauthenticated()
        return record

    def _seen(self, token_id: str) -> TokenRecord | None:
        known = self.tokens.get(token_id)
        return known.record if known else None

    async def _newest(self, token_id: str) -> TokenRecord | None:
        """Return what the bucket has: a token made or rotated this moment may come before the news of it."""
        if not self.tokens.is_complete():
            if self._seen(token_id):
                return None
            raise unavailable("The gateway is still reading the list of tokens.")
        if not self._reads.take():
            await asyncio.sleep(_MIRROR_LAG_SECONDS)
            return self._seen(token_id)
        found = await _answered(self.tokens.confirm(token_id))
        return found.record if found else None

    async def caller(self, scope: Scope) -> Caller:
        """Return the agent process behind a credential; raises 401, 403, 409 or 503."""
        claims = self.credentials.read_credential(bearer(scope["headers"]))
        token = self.tokens.get(claims.token_id) or await _answered(self.tokens.confirm(claims.token_id))
        if token is None or not is_alive(token.record, datetime.now(UTC)):
            raise unauthenticated()
        self._admit(token.record, scope)
        agent = self.agents.get(claims.agent)
        if agent is None or agent.record.instance != claims.instance:
            agent = await _answered(self.agents.confirm(claims.agent))
        if agent is None:
            raise unauthenticated()
        if agent.record.instance != claims.instance:
            raise replaced(claims.agent)
        self.require_alive(claims.agent, claims.instance)
        return Caller(claims, agent.record, token.record)

    def require_alive(self, agent: str, instance: str) -> None:
        """
        Raise 409 when the process is known to have ended, however much it speaks.

        Its leases may be somebody else's by now. By the mirror alone: what it says of an end is for ever.
        """
        if self._has_ended(agent, instance):
            raise ended(agent)

    def _has_ended(self, agent: str, instance: str) -> bool:
        known = self.health.get(health_key(agent, instance))
        return known is not None and has_ended(known.record)

    def holder(self, scope: Scope) -> LeaseClaims | TriggerClaims:
        """
        Return the lease or the trigger that a token names; 401 when its agent's token was revoked.

        Only *revoked* counts here: a token that merely expires ends registration and heartbeats, while a
        running task goes on until its lease ends. Whether the lease is held is asked of ``holdings``.
        """
        claims = self.credentials.read_holder_token(bearer(scope["headers"]))
        agent = self.agents.get(claims.agent)
        token = self.tokens.get(agent.record.token_id) if agent else None
        if token and token.record.revoked_at:
            raise unauthenticated()
        if token:
            check_origin(token.record, origin_of(scope))
        return claims

    def refusal(self, claims: AgentClaims) -> ProblemError | None:
        """Return why a caller that was accepted before would be refused now, by the mirrors alone."""
        token = self.tokens.get(claims.token_id)
        if token and not is_alive(token.record, datetime.now(UTC)):
            return unauthenticated()
        agent = self.agents.get(claims.agent)
        if agent and agent.record.instance != claims.instance:
            return replaced(claims.agent)
        return ended(claims.agent) if self._has_ended(claims.agent, claims.instance) else None


def replaced(agent: str) -> ProblemError:
    """Return the answer to a process whose agent's name was taken over by a newer one."""
    return ProblemError(
        ProblemType.AGENT_REPLACED,
        f"A newer process registered as agent {agent!r}. Stop this one, or give it a name of its own.",
    )


def ended(agent: str) -> ProblemError:
    """Return the answer to a process that said goodbye, or was seen to end, and still speaks."""
    return ProblemError(
        ProblemType.AGENT_ENDED,
        f"The plane knows that this process of agent {agent!r} ended. End it and start a new one.",
    )


def bearer(headers: Headers) -> str:
    """Return the bearer token; raises 401 when there is none, or more than one."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        raise unauthenticated()
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token or token != token.strip():
        raise unauthenticated()
    return token


def _if_valid(record: TokenRecord | None, token: AgentToken) -> TokenRecord | None:
    """Return the record if the secret opens it; the work is the same for ids that do not exist."""
    return record if is_valid(record or _NOBODY, token.secret, datetime.now(UTC)) else None


async def _answered(read: Awaitable[T]) -> T:
    try:
        return await read
    except BusUnavailableError as exc:
        raise unavailable("The gateway cannot check this token now because NATS is away.") from exc
