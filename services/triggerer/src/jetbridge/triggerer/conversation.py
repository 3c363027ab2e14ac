"""
What a triggerer says to the gateway: it begins, asks what to run, delivers events, ends.

A triggerer that was taken for lost learns it from any of these (410). It begins anew under another number and
changes nothing else: triggers that nobody took meanwhile are given back to it, those that somebody took it is
told to release one by one. What they fired is delivered under the new number, for as far as it holds them.
"""

from __future__ import annotations

import asyncio

import structlog

from jetbridge.agent.errors import (
    AgentError,
    AgentReplacedError,
    LeaseLostError,
    RequestRefusedError,
    TokenRefusedError,
    UnknownContractError,
)
from jetbridge.agent.session import jittered
from jetbridge.agent.waiting import wait_at_most
from jetbridge.contracts.api import HeartbeatRequest, Orders
from jetbridge.contracts.triggering import TriggerEventsRequest, TriggerPollRequest
from jetbridge.triggerer.calls import TriggererSession
from jetbridge.triggerer.exchange import Exchange
from jetbridge.triggerer.outbox import Outgoing

log = structlog.get_logger(__name__)

FATAL = (AgentReplacedError, TokenRefusedError, UnknownContractError)
"""Refusals that are not about one request."""

SHORTEST_POLL_SECONDS = 0.5
"""An answer without anything new to start: the same will be said again until what is ending has ended."""

STUCK_SECONDS = 30.0
"""
A supervisor's loop that has not come round for this long is stuck. It comes round each second; the limit is
Airflow's own for a runner ([triggerer] runner_health_check_threshold).
"""


class Conversation:
    """One process's talk with the gateway about triggers."""

    def __init__(self, session: TriggererSession, exchange: Exchange) -> None:
        self._session = session
        self._exchange = exchange
        self._attaching = asyncio.Lock()
        self._number = 0
        self._wait_seconds = 0.0
        self._something = asyncio.Event()
        self._delivered = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        exchange.outbox.on_change = self._outbox_changed

    async def beat(self, capacity: int) -> None:
        """Send heartbeats, for as long as the agent runs. They keep the registration, polls the triggers."""
        while True:
            _, answer = await self._session.heartbeat(
                lambda: HeartbeatRequest(
                    free_slots=max(0, capacity - len(self._exchange.running())),
                    draining=self._exchange.stopping,
                )
            )
            self._obey(answer.orders)
            await asyncio.sleep(jittered(self._session.plan.heartbeat_interval_seconds))

    def _obey(self, orders: Orders | None) -> None:
        """End when the plane says so; triggers are never finished first, others go on with them."""
        if orders and orders.drain and not self._exchange.stopping:
            log.info("draining: the plane ordered it")
            self._exchange.stop()

    async def poll(self) -> None:
        """Ask what to run, for as long as the agent runs."""
        while True:
            await self._until_not_stuck()
            number = await self._attached()
            request = TriggerPollRequest(
                triggerer=number, running=self._exchange.running(), wait_seconds=self._wait_seconds
            )
            try:
                answer = await self._session.poll_triggers(request)
            except LeaseLostError:
                await self._lost(number)
                continue
            if not self._exchange.tell(answer) and (answer.start or answer.cancel or answer.release):
                await asyncio.sleep(SHORTEST_POLL_SECONDS)

    async def deliver(self) -> None:
        """Deliver events, for as long as the agent runs."""
        while True:
            self._something.clear()
            while batch := self._exchange.outbox.batch():
                await self._deliver(batch)
            self._delivered.set()
            await self._something.wait()
            self._delivered.clear()

    async def end(self, seconds: float) -> None:
        """Wait for the events to be delivered, then tell the plane that this agent runs nothing any more."""
        if len(self._exchange.outbox):
            self._delivered.clear()
            await wait_at_most(self._delivered, seconds)
        if left := len(self._exchange.outbox):
            log.warning("events were not delivered; their triggers run again elsewhere", events=left)
        if self._number:
            async with asyncio.timeout(max(seconds, 1.0)):
                await self._session.detach(self._number)

    def _outbox_changed(self) -> None:
        self._loop.call_soon_threadsafe(self._something.set)

    async def _attached(self) -> int:
        async with self._attaching:
            if not self._number:
                answer = await self._session.attach()
                self._number, self._wait_seconds = answer.triggerer, answer.poll_wait_seconds
                log.info("triggerer attached", triggerer=self._number)
            return self._number

    async def _lost(self, number: int) -> None:
        async with self._attaching:
            if self._number == number:
                log.warning(
                    "the plane had taken this triggerer for lost; it attaches again", triggerer=number
                )
                self._number = 0

    async def _deliver(self, batch: tuple[Outgoing, ...]) -> None:
        number = await self._attached()
        request = TriggerEventsRequest(triggerer=number, events=tuple(one.body for one in batch))
        try:
            answer = await self._session.post_events(request)
        except LeaseLostError:
            await self._lost(number)
        except FATAL:
            raise
        except RequestRefusedError as error:
            await self._refused(batch, error)
        else:
            for aside in answer.set_aside:
                log.warning("event set aside by the plane", sequence=aside.sequence, reason=aside.reason)
            self._forget(batch)

    async def _refused(self, batch: tuple[Outgoing, ...], error: AgentError) -> None:
        """Find the event that is at fault and drop it alone."""
        if len(batch) > 1:
            for one in batch:
                await self._deliver((one,))
            return
        body = batch[0].body
        log.error("event refused and dropped", trigger_id=body.trigger_id, reason=str(error))
        self._exchange.outbox.acknowledged(body.sequence)

    def _forget(self, batch: tuple[Outgoing, ...]) -> None:
        told = self._exchange.outbox.acknowledged(batch[-1].body.sequence)
        self._exchange.persisted(told)

    async def _until_not_stuck(self) -> None:
        """Be silent while the supervisor is stuck: then the plane gives its triggers to others."""
        if self._exchange.silent_seconds() < STUCK_SECONDS:
            return
        log.error("the supervisor's loop is stuck; this agent is silent until it goes on")
        while self._exchange.silent_seconds() >= STUCK_SECONDS:  # noqa: ASYNC110 - nothing there to set an event
            await asyncio.sleep(1.0)
