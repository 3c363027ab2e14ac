"""
What triggerer agents ask, answered by the bridge; the gateway keeps the polls open meanwhile.

The bridge answers at once with what is to change. While that is nothing the gateway asks again each second,
which is how often Airflow's own triggerer looks into its database. Only the first question of a poll is
a sign of the agent's life: what the gateway asks after that says nothing about the agent.

A trigger's requests to ``/execution/*`` carry a token that names the trigger and its triggerer. Whether that
triggerer holds that trigger is asked of the bridge, and the answer is believed for half a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import structlog

from jetbridge.bus.errors import BusError
from jetbridge.bus.rpc import RpcClient, RpcRefusedError
from jetbridge.contracts import triggering
from jetbridge.contracts.api import DepthResponse
from jetbridge.contracts.envelope import Body, MessageError
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.rpc import RefusalCode
from jetbridge.contracts.triggering import (
    AttachResponse,
    DetachRequest,
    DetachResponse,
    TriggerEventsRequest,
    TriggerEventsResponse,
    TriggerPollRequest,
    TriggerPollResponse,
    TriggerStart,
)
from jetbridge.gateway.auth import Caller, Gatekeeper
from jetbridge.gateway.boundary import Boundary
from jetbridge.gateway.credentials import TriggerClaims
from jetbridge.gateway.execution_rules import Asker, Kind
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.orders import Orders
from jetbridge.gateway.problems import ProblemError, unavailable

log = structlog.get_logger(__name__)
A = TypeVar("A", bound=Body)

LOOK_AGAIN_SECONDS = 1.0

POLLS_PER_LIFE = 6
"""Polls, and so signs of life, in the time after which a silent triggerer is lost."""

SHORTEST_HOLD_SECONDS = 0.2

ANSWER_SECONDS = 15.0
"""Limit of one question to the bridge; below the 20 s for which agents wait."""

BELIEVED_SECONDS = 0.5
_REMEMBERED = 20_000


class TriggerDesk:
    """Where triggerer agents ask and report."""

    def __init__(
        self,
        rpc: RpcClient,
        gatekeeper: Gatekeeper,
        orders: Orders,
        boundary: Boundary,
        metrics: GatewayMetrics,
    ) -> None:
        self._rpc = rpc
        self._gatekeeper = gatekeeper
        self._orders = orders
        self._boundary = boundary
        self._metrics = metrics
        self._polls: dict[str, asyncio.Event] = {}
        self._leases: OrderedDict[TriggerClaims, tuple[triggering.Leased, float]] = OrderedDict()
        self._draining = False

    def drain(self) -> None:
        """Answer every held poll now and hold no new ones."""
        self._draining = True
        for end in self._polls.values():
            end.set()

    async def attach(self, caller: Caller) -> AttachResponse:
        """Begin a triggerer for the caller."""
        request = triggering.Attach(agent=caller.name, instance=caller.claims.instance)
        answer = await self._ask(triggering.ATTACH, request, triggering.Attached)
        log.info("triggerer.attached", triggerer=answer.triggerer)
        return AttachResponse(
            triggerer=answer.triggerer,
            lost_after_seconds=answer.lost_after_seconds,
            poll_wait_seconds=answer.lost_after_seconds / POLLS_PER_LIFE,
        )

    async def detach(self, caller: Caller, request: DetachRequest) -> DetachResponse:
        """End the caller's triggerer."""
        ask = triggering.Detach(agent=caller.name, triggerer=request.triggerer)
        await self._ask(triggering.DETACH, ask, triggering.Detached)
        log.info("triggerer.detached", triggerer=request.triggerer)
        return DetachResponse()

    async def depth(self, queues: tuple[str, ...]) -> DepthResponse:
        """Return how many triggers there are for triggerers of these queues; none means those without one."""
        answer = await self._ask(triggering.COUNT, triggering.Count(queues=queues), triggering.Counted)
        total = answer.assigned + answer.waiting
        return DepthResponse(value=total, waiting=answer.waiting, running=answer.assigned)

    async def events(self, caller: Caller, request: TriggerEventsRequest) -> TriggerEventsResponse:
        """Pass on what became of triggers."""
        queues = {
            event.trigger_id: await self._queue(caller, request.triggerer, event.trigger_id)
            for event in request.events
            if event.traceback
        }
        events = self._boundary.screened_events(
            request.events, agent=caller.name, site=caller.record.site, queues=queues
        )
        ask = triggering.Submit(agent=caller.name, triggerer=request.triggerer, events=events)
        answer = await self._ask(triggering.EVENTS, ask, triggering.Submitted)
        self._metrics.trigger_events.labels("taken").inc(len(request.events) - len(answer.set_aside))
        self._metrics.trigger_events.labels("set-aside").inc(len(answer.set_aside))
        return TriggerEventsResponse(taken=answer.taken, set_aside=answer.set_aside)

    async def poll(
        self, caller: Caller, request: TriggerPollRequest, hung_up: Callable[[], Awaitable[object]]
    ) -> TriggerPollResponse:
        """Wait until something is to change; all is empty when nothing is in time."""
        if self._draining:
            raise unavailable("This gateway is shutting down; poll again.")
        async with self._one_poll_of(caller, hung_up) as over:
            until = time.monotonic() + request.wait_seconds
            answer = await self._sync(caller, request, beat=True)
            while not (answer.start or answer.cancel or answer.release):
                left = until - time.monotonic()
                if left <= 0 or await _within(over, min(left, LOOK_AGAIN_SECONDS)):
                    break
                if refusal := self._gatekeeper.refusal(caller.claims):
                    raise refusal
                answer = await self._sync(caller, request, beat=False)
        site = caller.record.site
        start = tuple(
            self._boundary.opened_trigger(self._with_token(caller, request.triggerer, one), site)
            for one in answer.start
        )
        return TriggerPollResponse(start=start, cancel=answer.cancel, release=answer.release)

    async def asker_of(self, claims: TriggerClaims) -> Asker | None:
        """Return as whom a trigger may ask Airflow now; None when its triggerer does not hold it."""
        known = await self._leased(claims)
        if not known.held:
            return None
        own = known.coordinates
        return Asker(
            kind=Kind.TRIGGER,
            task_instance=known.task_instance,
            coordinates=own,
            queue=known.queue,
            dags=frozenset({own.dag_id} if own else ()),
            trigger=claims.trigger_id,
        )

    async def _queue(self, caller: Caller, triggerer: int, trigger_id: int) -> str:
        """Return the queue of the task that waits for a trigger, whose policy counts; empty for none."""
        return (await self._leased(TriggerClaims(trigger_id, triggerer, caller.name))).queue

    async def _leased(self, claims: TriggerClaims) -> triggering.Leased:
        known, until = self._leases.get(claims, (None, 0.0))
        if known is None or until < time.monotonic():
            return await self._lease(claims)
        return known

    async def _lease(self, claims: TriggerClaims) -> triggering.Leased:
        request = triggering.Lease(
            agent=claims.agent, triggerer=claims.triggerer, trigger_id=claims.trigger_id
        )
        answer = await self._ask(triggering.LEASE, request, triggering.Leased)
        self._leases[claims] = answer, time.monotonic() + BELIEVED_SECONDS
        self._leases.move_to_end(claims)
        if len(self._leases) > _REMEMBERED:
            self._leases.popitem(last=False)
        return answer

    async def _sync(self, caller: Caller, request: TriggerPollRequest, *, beat: bool) -> triggering.Synced:
        ask = triggering.Sync(
            agent=caller.name,
            triggerer=request.triggerer,
            # Nothing to take: what a cordoned triggerer runs already, it keeps.
            capacity=0 if self._orders.is_cordoned(caller.name) else caller.record.slots,
            queues=caller.record.queues,
            running=request.running,
            beat=beat,
        )
        return await self._ask(triggering.SYNC, ask, triggering.Synced)

    def _with_token(self, caller: Caller, triggerer: int, start: TriggerStart) -> TriggerStart:
        claims = TriggerClaims(start.trigger_id, triggerer, caller.name)
        token = self._gatekeeper.credentials.issue_trigger_token(claims)
        return msgspec.structs.replace(start, token=token)

    @asynccontextmanager
    async def _one_poll_of(
        self, caller: Caller, hung_up: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[asyncio.Event]:
        """Yield what is set when the poll is over: the agent hung up or polls anew, or the gateway drains."""
        if earlier := self._polls.get(caller.name):
            earlier.set()
        over = self._polls[caller.name] = asyncio.Event()
        watching = asyncio.ensure_future(hung_up())
        watching.add_done_callback(lambda _: over.set())
        try:
            yield over
        finally:
            watching.cancel()
            if self._polls.get(caller.name) is over:
                del self._polls[caller.name]

    async def _ask(self, subject: str, request: Body, answer: type[A]) -> A:
        agent = getattr(request, "agent", "")
        try:
            return await self._rpc.ask(subject, request, answer, agent=agent, timeout_seconds=ANSWER_SECONDS)
        except RpcRefusedError as exc:
            raise _problem(exc) from exc
        except (BusError, MessageError) as exc:
            log.warning("bridge.unavailable", subject=subject, error=str(exc))
            raise unavailable("The plane's bridge did not answer. Repeat the same request.") from exc


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, but no longer than ``seconds``; say whether it is."""
    try:
        await asyncio.wait_for(event.wait(), max(seconds, SHORTEST_HOLD_SECONDS))
    except TimeoutError:
        return False
    return True


_PROBLEMS = {
    RefusalCode.NOT_FOUND: ProblemType.LEASE_LOST,
    RefusalCode.CONFLICT: ProblemType.NOT_HELD,
    RefusalCode.MALFORMED: ProblemType.MALFORMED,
    RefusalCode.TOO_LARGE: ProblemType.TOO_LARGE,
    RefusalCode.INTERNAL: ProblemType.INTERNAL,
}


def _problem(refused: RpcRefusedError) -> ProblemError:
    kind = _PROBLEMS.get(refused.code)
    return ProblemError(kind, refused.detail) if kind else unavailable(refused.detail)
