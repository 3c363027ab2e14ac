"""
Brings work from the lanes to the polls that wait for it.

One puller per lane asks JetStream for as much as the waiting polls can take, and for nothing when nobody
waits. Each message is compared with its record and becomes an offer by compare-and-set; what fails on the
way is left unacknowledged and comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusError, ConflictError
from jetbridge.bus.intake import MessageError, Verdict, judge, read_work
from jetbridge.bus.kv import Versioned
from jetbridge.bus.lanes import Lane
from jetbridge.bus.tasks import end_tasks
from jetbridge.bus.topology import OFFER_SECONDS
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.api import Offer
from jetbridge.contracts.envelope import Envelope
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import WorkloadRejected, WorkloadSubmitted
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.contracts.subjects import WORK_STREAM
from jetbridge.gateway.background import Background
from jetbridge.gateway.board import Board, Waiter
from jetbridge.gateway.known import Known
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.telemetry.spans import messaging, span
from jetbridge.telemetry.tracing import current_traceparent, remote_context, tracer

log = structlog.get_logger(__name__)
_tracer = tracer(__name__)

MAX_BATCH = 64
"""Most messages of a lane in the making at once; more only makes the first of them wait."""

_LINGER_SECONDS = 0.1
"""An agent that got work polls again within milliseconds; until then pulled messages are kept."""

_IDLE_SECONDS = 300.0
"""A lane nobody asked for this long is closed; the next poll for it opens it again."""

_RETRY_SECONDS = 1.0

_OFFER_MARGIN_SECONDS = 1.0
"""Agents are told a little less than JetStream waits: the message was on its way to us before."""

_CAS_ATTEMPTS = 3


@dataclass(kw_only=True)
class Matchmaker:
    """All lanes of this gateway."""

    bus: Bus
    store: WorkloadStore
    workloads: Known[WorkloadRecord]
    board: Board
    background: Background
    metrics: GatewayMetrics
    _changed: dict[str, asyncio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.board.on_change(self._wake_lane)
        self.workloads.mirror.on_change(self._follow)

    def open(self, lanes: tuple[str, ...]) -> None:
        """See to it that each of ``lanes`` has its puller."""
        for lane in lanes:
            if lane not in self._changed:
                self._changed[lane] = asyncio.Event()
                self.background.start(f"lane {lane}", self._run(lane))

    async def run_expiry(self) -> None:
        """Give agents their slots back when offers went unanswered, until cancelled."""
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            for agent in self.board.outstanding.expire():
                self.board.refresh(agent)

    def _wake_lane(self, lane: str) -> None:
        if event := self._changed.get(lane):
            event.set()

    def _follow(self, workload_id: str, workload: Versioned[WorkloadRecord] | None) -> None:
        """Keep count of offers, whichever gateway made them."""
        record = workload.record if workload else None
        if workload and record and record.agent and record.state is WorkloadState.OFFERED:
            self.board.outstanding.add(record.agent, LeaseKey(workload_id, workload.revision))
            self.board.refresh(record.agent)
        elif agent := self.board.outstanding.remove(workload_id):
            self.board.refresh(agent)

    async def _run(self, lane: str) -> None:
        while lane in self._changed:
            try:
                async with Lane(self.bus, lane) as source:
                    await self._serve(lane, source)
            except (BusError, NatsError, OSError) as exc:
                self.metrics.lane_errors.inc()
                log.warning("lane.failed", lane=lane, error=type(exc).__name__, detail=str(exc))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _serve(self, lane: str, source: Lane) -> None:
        """Pull and offer until nobody has wanted anything for long."""
        while True:
            if not await self._wanted(lane, _LINGER_SECONDS):
                await source.release()
                if not await self._wanted(lane, _IDLE_SECONDS):
                    del self._changed[lane]
                    return
            take = asyncio.create_task(source.take(self.board.capacity(lane, MAX_BATCH)))
            try:
                if await self._still_wanted(lane, take):
                    await self._dispatch(lane, take.result())
            finally:
                await end_tasks([take])

    async def _wanted(self, lane: str, within_seconds: float) -> bool:
        """Wait until somebody in the lane has a free slot."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                while not self.board.capacity(lane, 1):
                    self._changed[lane].clear()
                    await self._changed[lane].wait()
        return self.board.capacity(lane, 1) > 0

    async def _still_wanted(self, lane: str, take: asyncio.Task[list[Msg]]) -> bool:
        """Wait for messages; says False when all who wanted them went away first."""
        while not take.done():
            if not await self._wanted(lane, _LINGER_SECONDS):
                return take.done()
            self._changed[lane].clear()
            change = asyncio.create_task(self._changed[lane].wait())
            try:
                await asyncio.wait({take, change}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
        return True

    async def _dispatch(self, lane: str, messages: list[Msg]) -> None:
        """Offer the messages to the polls that wait, then answer the polls that got something."""
        waiters = await asyncio.gather(*(self._handle(lane, message) for message in messages))
        for waiter in {waiter for waiter in waiters if waiter}:
            waiter.wake()

    async def _handle(self, lane: str, message: Msg) -> Waiter | None:
        try:
            envelope, submitted = read_work(message.data, lane)
        except MessageError as exc:
            await self._reject(message, str(exc))
            return None
        waiter = self.board.choose(lane)
        if waiter is None:
            await self._settle(message.nak(), "given back")
            return None
        try:
            await self._try_offer(message, envelope, submitted, waiter)
        except (BusError, NatsError) as exc:  # not acknowledged, so it comes again
            self.metrics.messages.labels("failed").inc()
            log.warning("offer.failed", workload_id=submitted.workload_id, error=str(exc))
        finally:
            self.board.settle(waiter)
        return waiter

    async def _try_offer(
        self, message: Msg, envelope: Envelope, submitted: WorkloadSubmitted, waiter: Waiter
    ) -> None:
        with span(
            _tracer,
            "process WORK",
            context=remote_context(envelope.traceparent),
            kind="consumer",
            attributes=messaging("process", "process", WORK_STREAM, envelope.id)
            | {"jetbridge.queue": submitted.queue, "jetbridge.agent": waiter.agent},
        ):
            workload = self.workloads.get(submitted.workload_id)
            for _ in range(_CAS_ATTEMPTS):
                if workload is None or judge(workload, submitted) is Verdict.UNSEEN:
                    workload = await self.workloads.confirm(submitted.workload_id)
                verdict = judge(workload, submitted)
                if workload is None or verdict is Verdict.DONE:
                    await self._settle(message.ack(), "dropped")
                    return
                if verdict is Verdict.UNSEEN:
                    break
                if waiter.gone:
                    await self._settle(message.nak(), "given back")
                    return
                try:
                    lease = await self.store.offer(
                        workload,
                        waiter.agent,
                        message.reply,
                        waiter.claims.instance,
                        queue=submitted.queue,
                    )
                except ConflictError:
                    workload = None
                    continue
                self._made(lease, envelope, submitted, waiter)
                return
            self.metrics.messages.labels("left").inc()

    def _made(
        self, lease: LeaseKey, envelope: Envelope, submitted: WorkloadSubmitted, waiter: Waiter
    ) -> None:
        self.board.outstanding.add(waiter.agent, lease)
        waiter.offers.append(
            Offer(
                lease=str(lease),
                kind=submitted.kind,
                queue=submitted.queue,
                coordinates=submitted.coordinates,
                expires_in_seconds=OFFER_SECONDS - _OFFER_MARGIN_SECONDS,
                traceparent=current_traceparent() or envelope.traceparent,
                spec=submitted.spec,
            )
        )
        self.metrics.offers.inc()
        self.metrics.messages.labels("offered").inc()
        self.metrics.handover.observe(max(0.0, (datetime.now(UTC) - envelope.time).total_seconds()))
        log.debug("offer.made", lease=str(lease), agent=waiter.agent, queue=submitted.queue)

    async def _reject(self, message: Msg, reason: str) -> None:
        """Set a message aside for good, once its event is kept; until then it comes again."""
        log.error("work.rejected", subject=message.subject, reason=reason)
        sequence = message.metadata.sequence.stream
        body = WorkloadRejected(subject=message.subject, reason=reason[:1024])
        try:
            await self.store.publish_event(body, f"work.{sequence}.rejected")
        except (BusError, NatsError):
            return
        await self._settle(message.term(), "rejected")

    async def _settle(self, answer: Awaitable[None], outcome: str) -> None:
        """Answer JetStream about a message. A lost answer costs a redelivery, nothing else."""
        self.metrics.messages.labels(outcome).inc()
        with suppress(NatsError):
            await answer
