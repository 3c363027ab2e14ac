"""
Moving the work of one lane to others.

The router takes from the lane as a gateway does: through the lane's consumers, so that every message is in
one pair of hands, most urgent band first and oldest first within it, and comes back if those hands die. A
message is acknowledged only after its copy is stored in the other lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.intake import Verdict, judge, read_work
from jetbridge.bus.lanes import Lane
from jetbridge.bus.workloads import VersionedWorkload, WorkloadStore
from jetbridge.contracts.envelope import Envelope, MessageError
from jetbridge.contracts.failover import WorkloadMoved
from jetbridge.contracts.messages import WorkloadSubmitted
from jetbridge.contracts.records import WorkloadRecord
from jetbridge.contracts.subjects import band_of, lane_of
from jetbridge.router.metrics import RouterMetrics
from jetbridge.telemetry.spans import span
from jetbridge.telemetry.tracing import remote_context, tracer

log = structlog.get_logger(__name__)
_tracer = tracer(__name__)

BATCH = 64
NOTHING_MORE_SECONDS = 2.0
"""A lane that gives nothing for this long has nothing now; what a gateway still holds comes later."""

Destination = Callable[[WorkloadRecord], str | None]
"""Where a workload goes, or None for one that stays."""


@dataclass(frozen=True)
class Mover:
    """Moves work, one message after the other, so that it arrives in the order in which it waited."""

    bus: Bus
    store: WorkloadStore
    metrics: RouterMetrics

    async def move(self, queue: str, destination: Destination, reason: str, limit: int) -> int:
        """
        Move up to ``limit`` workloads out of the lane of ``queue``; return how many went.

        ``destination`` is asked anew for each. Raises ``BusError``; what is in hand then comes again.
        """
        moved = seen = 0
        lane_name = lane_of(queue)
        async with Lane(self.bus, lane_name) as lane:
            while seen < limit:
                try:
                    messages = await asyncio.wait_for(
                        lane.take(min(BATCH, limit - seen)), NOTHING_MORE_SECONDS
                    )
                except TimeoutError:
                    break
                seen += len(messages)
                for message in messages:
                    moved += await self._handle(lane_name, message, destination, reason)
        return moved

    async def _handle(self, lane: str, message: Msg, destination: Destination, reason: str) -> bool:
        try:
            envelope, submitted = read_work(message.data, lane)
        except MessageError as exc:  # whoever serves the lane sets it aside for good
            log.warning("router.unusable_work", subject=message.subject, reason=str(exc))
            return False
        workload = await self.store.get(submitted.workload_id)
        verdict = judge(workload, submitted)
        if verdict is Verdict.UNSEEN:
            return False
        if workload is None or verdict is Verdict.DONE or lane_of(workload.record.waits_in) != lane:
            # Ended, overtaken, or moved before: its copy was stored before its record said so.
            await _settle(message.ack())
            return False
        to = destination(workload.record)
        if to is None:
            return False  # not acknowledged, so it is there again for whoever may take it
        about = {"jetbridge.workload": submitted.workload_id, "jetbridge.queue": to}
        with span(_tracer, "router.move", context=remote_context(envelope.traceparent), attributes=about):
            await self.store.move(workload, (envelope, submitted), band_of(message.subject), to)
            await _settle(message.ack())
        await self._tell(workload, envelope, submitted, to, reason)
        return True

    async def _tell(
        self,
        workload: VersionedWorkload,
        envelope: Envelope,
        submitted: WorkloadSubmitted,
        to: str,
        reason: str,
    ) -> None:
        record = workload.record
        self.metrics.moved.inc()
        log.info("workload.moved", workload=record.workload_id, queue=record.waits_in, to=to, reason=reason)
        event = WorkloadMoved(
            workload_id=record.workload_id,
            submission=submitted.submission,
            queue=record.waits_in,
            to=to,
            coordinates=record.coordinates,
            reason=reason,
        )
        with suppress(BusError):  # a line of history; the work has been moved
            await self.store.publish_event(
                event, f"{record.workload_id}.{workload.revision}.moved", envelope.traceparent
            )


async def _settle(answer: Awaitable[None]) -> None:
    with suppress(NatsError):  # a lost answer costs a redelivery, nothing else
        await answer
