"""Registration and heartbeats of agents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.errors import BusError
from jetbridge.bus.tokens import is_alive
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.api import (
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
)
from jetbridge.contracts.messages import AgentRegistered
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.records import AgentRecord, TokenRecord
from jetbridge.gateway.auth import Caller, Gatekeeper
from jetbridge.gateway.contact import Contact
from jetbridge.gateway.credentials import Credentials
from jetbridge.gateway.holdings import Holdings
from jetbridge.gateway.known import Known
from jetbridge.gateway.orders import Orders
from jetbridge.gateway.presence import Presence
from jetbridge.gateway.problems import ProblemError, unavailable
from jetbridge.gateway.scope_rules import check_registration
from jetbridge.gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class AgentDesk:
    """Where agents introduce themselves and report."""

    store: AgentStore
    tokens: Known[TokenRecord]
    events: WorkloadStore
    holdings: Holdings
    contact: Contact
    presence: Presence
    credentials: Credentials
    gatekeeper: Gatekeeper
    orders: Orders
    settings: GatewaySettings

    async def register(self, request: RegisterRequest, token: TokenRecord) -> RegisterResponse:
        """
        Write the agent's record, tell the plane, answer a credential; repeating it is harmless.

        Dying after the record: the retry writes it again. Dying after the event: the retry's has the same id.
        """
        if request.name.endswith("\n"):  # in a regular expression, $ also matches before a last line break
            raise ProblemError(ProblemType.MALFORMED, "An agent's name holds no line break.")
        check_registration(token, request, require_scopes=self.settings.require_scopes)
        self.gatekeeper.require_alive(request.name, request.instance)
        await self.store.register(_record(request, token), partial(self._may_replace, token))
        event = AgentRegistered(
            agent=request.name, role=request.role, queues=request.queues, token_id=token.id
        )
        await self.events.publish_event(event, f"{request.name}.{request.instance}.registered")
        log.info("agent.registered", agent=request.name, token_id=token.id, queues=request.queues)
        settings = self.settings
        return RegisterResponse(
            agent=request.name,
            credential=self._credential(request.name, request.instance, token.id),
            credential_expires_in_seconds=settings.credential_seconds,
            heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
            poll_wait_seconds=settings.poll_wait_seconds,
            lease_seconds=settings.lease_seconds,
        )

    async def _may_replace(self, token: TokenRecord, earlier: AgentRecord) -> bool:
        """
        Say whether a token may take over an agent's name: with the name go the leases.

        It belongs to the token that registered it, for as long as that is alive.
        """
        if earlier.token_id == token.id:
            return True
        owner = self.tokens.get(earlier.token_id) or await self.tokens.confirm(earlier.token_id)
        return owner is None or not is_alive(owner.record, datetime.now(UTC))

    async def heartbeat(self, request: HeartbeatRequest, caller: Caller) -> HeartbeatResponse:
        """
        Note that the agent lives and answer which leases it really holds.

        503 while NATS is away: an answer would prolong leases that the plane may be giving to somebody else.
        """
        if not self.contact.in_touch:
            raise unavailable("The gateway has no contact to NATS, so it cannot confirm leases.")
        recorded = await self.presence.record(caller.record, request)
        if request.draining and not caller.record.draining:
            await self._note_draining(caller)
        lost = await self.holdings.lost(caller.name, request.leases)
        held = self.holdings.held_by(caller.name) | (set(request.leases) - lost)
        renewed = self._renewed(caller)
        return HeartbeatResponse(
            leases=tuple(sorted(held)),
            recorded=recorded,
            orders=self.orders.of(caller.name, caller.claims.instance),
            credential=renewed,
            credential_expires_in_seconds=self.settings.credential_seconds if renewed else None,
        )

    async def _note_draining(self, caller: Caller) -> None:
        """Keep that the process drains, for people; when that fails, the next heartbeat tries again."""
        try:
            await self.store.note_draining(caller.name, caller.claims.instance)
        except BusError as exc:
            log.info("agent.draining_not_noted", agent=caller.name, error=str(exc))

    def _renewed(self, caller: Caller) -> str | None:
        claims = caller.claims
        if not claims.past_half_life(self.settings.credential_seconds):
            return None
        return self._credential(claims.agent, claims.instance, claims.token_id)

    def _credential(self, agent: str, instance: str, token_id: str) -> str:
        return self.credentials.issue_credential(agent, instance, token_id, self.settings.credential_seconds)


def _record(request: RegisterRequest, token: TokenRecord) -> AgentRecord:
    return AgentRecord(
        name=request.name,
        instance=request.instance,
        role=request.role,
        queues=request.queues,
        slots=request.slots,
        labels=request.labels,
        software_version=request.software_version,
        site=request.site,
        log_store=request.log_store,
        token_id=token.id,
        registered_at=datetime.now(UTC),
    )
