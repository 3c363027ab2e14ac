"""
Holding agents' polls open until there is something to say.

A poll ends, in this order of precedence, because its token was revoked or its agent replaced (the
problem), because it has offers, leases to stop or orders, because the agent polled anew, because the gateway
drains, or because its time is up. An agent has one poll per gateway: a second one means that it gave up the
first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from jetbridge.bus.kv import Versioned
from jetbridge.contracts import api
from jetbridge.contracts.api import PollRequest, PollResponse
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.presence import agent_of
from jetbridge.contracts.records import AgentRecord, HealthRecord, TokenRecord, WorkloadRecord
from jetbridge.contracts.subjects import lane_of
from jetbridge.gateway.auth import Caller, Gatekeeper
from jetbridge.gateway.background import Background
from jetbridge.gateway.board import Board, Waiter
from jetbridge.gateway.holdings import Holdings, belongs
from jetbridge.gateway.known import Known
from jetbridge.gateway.matchmaker import Matchmaker
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.orders import Orders
from jetbridge.gateway.problems import unavailable

log = structlog.get_logger(__name__)

_REPEAT_STOP_SECONDS = 5.0
"""An agent that still names a lease it was told to stop is ending it; it is not woken again this soon."""

_REMEMBERED_STOPS = 10_000

_OFFERS_SETTLE_SECONDS = 10.0
"""Offers being written when a poll ends are waited for; longer than any one request to JetStream."""


@dataclass(kw_only=True)
class Polls:
    """All held polls of this gateway, and what ends them."""

    board: Board
    matchmaker: Matchmaker
    holdings: Holdings
    gatekeeper: Gatekeeper
    workloads: Known[WorkloadRecord]
    orders: Orders
    background: Background
    metrics: GatewayMetrics
    _named: defaultdict[str, set[Waiter]] = field(default_factory=lambda: defaultdict(set))  # by workload
    _told: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    _told_orders: OrderedDict[str, int] = field(default_factory=OrderedDict)  # by instance: the revision
    _draining: bool = False

    def __post_init__(self) -> None:
        self.workloads.mirror.on_change(self._workload_changed)
        self.gatekeeper.tokens.mirror.on_change(self._token_changed)
        self.gatekeeper.agents.mirror.on_change(self._agent_changed)
        self.gatekeeper.health.mirror.on_change(self._health_changed)
        self.orders.on_change(self._orders_changed)

    def drain(self) -> None:
        """Answer every held poll now and hold no new ones."""
        self._draining = True
        for waiter in self.board.waiters():
            waiter.wake()

    async def hold(
        self, caller: Caller, request: PollRequest, hung_up: Callable[[], Awaitable[object]]
    ) -> PollResponse:
        """
        Wait for offers or leases to stop; returns both empty when there are none in time.

        ``hung_up()`` ends when the client goes away. Raises the problems of :class:`Gatekeeper` when the
        caller stops being welcome meanwhile.
        """
        if self._draining:
            raise unavailable("This gateway is shutting down; poll again.")
        wake = asyncio.Event()
        waiter = Waiter(
            claims=caller.claims,
            lanes=tuple(dict.fromkeys(lane_of(queue) for queue in caller.record.queues)),
            free_slots=request.free_slots,
            leases=frozenset(request.leases),
            cordoned=self.orders.is_cordoned(caller.name),
            wake=wake.set,
        )
        self._open(waiter)
        try:
            await self._tell_lost(waiter, request.leases)
            await self._wait(waiter, wake, request.wait_seconds, hung_up)
        finally:
            self._close(waiter)
        await self._settled(waiter, wake)
        if refusal := self.gatekeeper.refusal(caller.claims):
            raise refusal
        return self._answer(waiter)

    def _open(self, waiter: Waiter) -> None:
        if earlier := self.board.add(waiter):
            earlier.wake()
        for lease in waiter.leases:
            self._named[LeaseKey.parse(lease).workload_id].add(waiter)
        self.matchmaker.open(waiter.lanes)
        self.metrics.held.set(len(self.board))

    def _close(self, waiter: Waiter) -> None:
        self.board.remove(waiter)
        for lease in waiter.leases:
            workload_id = LeaseKey.parse(lease).workload_id
            self._named[workload_id].discard(waiter)
            if not self._named[workload_id]:
                del self._named[workload_id]
        self.metrics.held.set(len(self.board))

    async def _wait(
        self, waiter: Waiter, wake: asyncio.Event, seconds: float, hung_up: Callable[[], Awaitable[object]]
    ) -> None:
        disconnect = asyncio.ensure_future(hung_up())
        woken = asyncio.ensure_future(self._until_something(waiter, wake))
        try:
            await asyncio.wait({disconnect, woken}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            waiter.gone = disconnect.done()
        finally:
            disconnect.cancel()
            woken.cancel()

    async def _until_something(self, waiter: Waiter, wake: asyncio.Event) -> None:
        while not self._is_over(waiter):
            await wake.wait()
            wake.clear()

    def _is_over(self, waiter: Waiter) -> bool:
        return bool(
            waiter.offers
            or not waiter.open
            or self._draining
            or self._untold(waiter)
            or self._has_untold_orders(waiter)
            or self.gatekeeper.refusal(waiter.claims)
        )

    async def _settled(self, waiter: Waiter, wake: asyncio.Event) -> None:
        """Wait for offers that were being written when the poll ended: they are the agent's."""
        with suppress(TimeoutError):  # what is late expires like any unanswered offer
            async with asyncio.timeout(_OFFERS_SETTLE_SECONDS):
                while waiter.making and not waiter.gone:
                    await wake.wait()
                    wake.clear()

    def _answer(self, waiter: Waiter) -> PollResponse:
        now = time.monotonic()
        for lease in self._untold(waiter):
            self._told[waiter.claims.instance, lease] = now
            log.info("lease.stop", lease=lease, agent=waiter.agent)
            self.metrics.lost.inc()
        while len(self._told) > _REMEMBERED_STOPS:
            self._told.popitem(last=False)
        return PollResponse(
            offers=tuple(waiter.offers), stop=tuple(sorted(waiter.stop)), orders=self._tell_orders(waiter)
        )

    def _has_untold_orders(self, waiter: Waiter) -> bool:
        revision = self.orders.revision(waiter.agent)
        return revision != 0 and self._told_orders.get(waiter.claims.instance) != revision

    def _tell_orders(self, waiter: Waiter) -> api.Orders | None:
        """Return the orders, noted as told: if the answer is lost, the next heartbeat's has them, too."""
        instance = waiter.claims.instance
        orders = self.orders.of(waiter.agent, instance)
        if orders is not None:
            self._told_orders[instance] = self.orders.revision(waiter.agent)
            self._told_orders.move_to_end(instance)
            if len(self._told_orders) > _REMEMBERED_STOPS:
                self._told_orders.popitem(last=False)
        return orders

    def _untold(self, waiter: Waiter) -> list[str]:
        if not waiter.stop:
            return []
        since = time.monotonic() - _REPEAT_STOP_SECONDS
        instance = waiter.claims.instance
        return [lease for lease in waiter.stop if self._told.get((instance, lease), 0.0) < since]

    async def _tell_lost(self, waiter: Waiter, leases: tuple[str, ...]) -> None:
        waiter.stop |= await self.holdings.lost(waiter.agent, leases)
        if waiter.stop:
            waiter.wake()

    def _workload_changed(self, workload_id: str, workload: Versioned[WorkloadRecord] | None) -> None:
        for waiter in self._named.get(workload_id, ()):
            doubtful = tuple(
                text
                for text in waiter.leases
                if (lease := LeaseKey.parse(text)).workload_id == workload_id
                and not belongs(workload, lease, waiter.agent)
            )
            if doubtful:
                self.background.start(f"stop {workload_id}", self._tell_lost(waiter, doubtful))

    def _orders_changed(self, agent: str) -> None:
        if waiter := self.board.of(agent):
            waiter.cordoned = self.orders.is_cordoned(agent)
            self.board.refresh(agent)
            waiter.wake()

    def _health_changed(self, key: str, _record: Versioned[HealthRecord] | None) -> None:
        if waiter := self.board.of(agent_of(key)[0]):
            waiter.wake()

    def _token_changed(self, token_id: str, _token: Versioned[TokenRecord] | None) -> None:
        for waiter in self.board.waiters():
            if waiter.claims.token_id == token_id:
                waiter.wake()

    def _agent_changed(self, agent: str, _record: Versioned[AgentRecord] | None) -> None:
        if waiter := self.board.of(agent):
            waiter.wake()
