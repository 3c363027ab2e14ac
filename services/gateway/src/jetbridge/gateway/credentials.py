"""
The bearer tokens the gateways sign: an agent's credential, a lease's token and a trigger's.

All are JWTs signed with one key that all gateways share, so any of them can check what any other
issued. The algorithm is pinned and the audience is checked, so one kind cannot stand in for the other.
Signing says only who somebody *was*; whether that still holds is asked of the mirrors (``auth``).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jwt

from jetbridge.contracts.ids import LeaseKey
from jetbridge.gateway.problems import unauthenticated

AGENT_AUDIENCE = "jetbridge-agent"
LEASE_AUDIENCE = "jetbridge-lease"
TRIGGER_AUDIENCE = "jetbridge-trigger"

_ALGORITHM = "HS256"
_CACHED = 20_000
"""Verified tokens remembered per kind: every agent and running task of a large site, about 20 MB."""
_MAX_TOKEN = 1024
"""Ours are under 400 characters; anything longer is not worth a signature check."""


@dataclass(frozen=True, slots=True)
class AgentClaims:
    """What a credential says: this process of that agent, registered with that token."""

    agent: str
    instance: str
    token_id: str
    expires_at: float

    def past_half_life(self, life_seconds: float) -> bool:
        """Say whether it is time for a new credential."""
        return self.expires_at - time.time() < life_seconds / 2


@dataclass(frozen=True, slots=True)
class LeaseClaims:
    """What a lease's token says."""

    lease: LeaseKey
    agent: str


@dataclass(frozen=True, slots=True)
class TriggerClaims:
    """What a trigger's token says: this trigger, run by that triggerer of an agent."""

    trigger_id: int
    triggerer: int
    agent: str


C = TypeVar("C")


class Credentials:
    """Signs and checks all kinds of token."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._agents: _Verified[AgentClaims] = _Verified(self._read_agent)
        self._holders: _Verified[LeaseClaims | TriggerClaims] = _Verified(self._read_holder)

    def issue_credential(self, agent: str, instance: str, token_id: str, life_seconds: float) -> str:
        """Return a credential for one process of an agent."""
        now = time.time()
        claims = {"sub": agent, "ins": instance, "tid": token_id, "iat": int(now), "exp": now + life_seconds}
        return jwt.encode(claims | {"aud": AGENT_AUDIENCE}, self._key, _ALGORITHM)

    def issue_lease_token(self, lease: LeaseKey, agent: str) -> str:
        """
        Return the token of a lease, the same for every repetition of the accept.

        It does not expire: a task may run for days, and the token is worth what the lease is worth.
        """
        claims = {"sub": lease.workload_id, "epoch": lease.epoch, "agent": agent, "aud": LEASE_AUDIENCE}
        return jwt.encode(claims, self._key, _ALGORITHM)

    def issue_trigger_token(self, claims: TriggerClaims) -> str:
        """Return the token of a trigger on a triggerer; it is worth what the plane says of both then."""
        fields = {"sub": str(claims.trigger_id), "job": claims.triggerer, "agent": claims.agent}
        return jwt.encode(fields | {"aud": TRIGGER_AUDIENCE}, self._key, _ALGORITHM)

    def read_credential(self, text: str) -> AgentClaims:
        """Return what a valid, unexpired credential says; raises 401."""
        claims = self._agents.get(text)
        if claims.expires_at <= time.time():
            raise unauthenticated()
        return claims

    def read_holder_token(self, text: str) -> LeaseClaims | TriggerClaims:
        """Return what the token of a lease or a trigger says; raises 401."""
        return self._holders.get(text)

    def _read_agent(self, text: str) -> AgentClaims:
        claims = self._decode(text, AGENT_AUDIENCE, ["sub", "ins", "tid", "exp"])
        return AgentClaims(claims["sub"], claims["ins"], claims["tid"], float(claims["exp"]))

    def _read_holder(self, text: str) -> LeaseClaims | TriggerClaims:
        claims = self._decode(text, [LEASE_AUDIENCE, TRIGGER_AUDIENCE], ["sub", "agent"])
        if claims["aud"] == TRIGGER_AUDIENCE:
            return TriggerClaims(int(claims["sub"]), claims["job"], claims["agent"])
        return LeaseClaims(LeaseKey(claims["sub"], claims["epoch"]), claims["agent"])

    def _decode(self, text: str, audience: str | list[str], required: list[str]) -> dict[str, Any]:
        try:
            return jwt.decode(
                text,
                self._key,
                algorithms=[_ALGORITHM],
                audience=audience,
                options={"require": ["aud", *required]},
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError) as exc:
            # PyJWT reads the header's JSON before any signature; a hostile one can be deep or not UTF-8.
            raise unauthenticated() from exc


class _Verified(Generic[C]):
    """Remembers the tokens that passed, least recently used out first. Failures are not remembered."""

    def __init__(self, verify: Callable[[str], C]) -> None:
        self._verify = verify
        self._known: OrderedDict[str, C] = OrderedDict()

    def get(self, text: str) -> C:
        if (claims := self._known.get(text)) is not None:
            self._known.move_to_end(text)
            return claims
        if len(text) > _MAX_TOKEN:
            raise unauthenticated()
        claims = self._verify(text)
        self._known[text] = claims
        if len(self._known) > _CACHED:
            self._known.popitem(last=False)
        return claims
