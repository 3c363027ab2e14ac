"""
Events of the bus as entries of Airflow's audit log, so that a task's history says which agent had it.

All schedulers share one durable consumer, so each event is written by one of them. What happens to it:

* written: acknowledged once the scheduler has had the time to commit the entry. A stop or a crash before
  that brings the event to the next scheduler; a crash between commit and acknowledgement brings it twice.
  Entries carry the lease and the time of the event, so that a repetition is recognised by its reader.
* unknown or malformed: logged with the reason and acknowledged. It stays in EVENTS for its seven days.
* no scheduler runs: it waits, for those seven days at most.

Entries come in order, except for what is delivered again. Nothing but history depends on them: the end of
a workload is read from its record.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from faststream import AckPolicy
from faststream.exceptions import NackMessage
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from jetbridge.bus.kv import answered
from jetbridge.bus.spans import receiving
from jetbridge.contracts.envelope import Envelope, MessageError, open_envelope, read_body
from jetbridge.contracts.failover import WorkloadMoved, WorkloadReleased, WorkloadStarving
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import TaskCoordinates, WorkloadFinished, WorkloadLeased
from jetbridge.contracts.records import AgentRecord
from jetbridge.contracts.subjects import EVENTS_STREAM, event_subject

CONSUMER = "scheduler-history"
SUBJECT = event_subject("workload.*")
BATCH = 200
"""Events between two rounds of the scheduler's loop; a round takes between 0.1 s and a few seconds."""

WRITTEN_WITHIN_SECONDS = 120.0
"""``ack_wait``: a round of the scheduler's loop that takes longer makes JetStream deliver again."""

_MAX_DELIVERIES = 20

LOOK_BACK = timedelta(minutes=10)
"""
Where a new consumer begins: a bus that was set up anew, or one whose consumer somebody deleted, should
neither lose the last events nor write a week of them again.
"""

Told = WorkloadLeased | WorkloadFinished | WorkloadReleased | WorkloadStarving | WorkloadMoved
TOLD: tuple[type[Told], ...] = (
    WorkloadLeased,
    WorkloadFinished,
    WorkloadReleased,
    WorkloadStarving,
    WorkloadMoved,
)
"""Events that a task's history tells, as ``jetbridge.leased`` and so on."""

REROUTE = "reroute"
"""``WorkloadReleased.action`` of work that runs again elsewhere."""

FindAgent = Callable[[str], AgentRecord | None]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One line of a task's audit log. ``extra`` is JSON."""

    event: str
    coordinates: TaskCoordinates
    extra: str
    traceparent: str | None = None


class HistoryQueue:
    """
    Entries on their way from the link's event loop to the scheduler's thread.

    :param news: called in the loop for each
    """

    def __init__(self, news: Callable[[], None]) -> None:
        self._news = news
        self._closed = False
        self._waiting: deque[tuple[HistoryEntry, asyncio.Future[None]]] = deque()
        self._taken: list[asyncio.Future[None]] = []

    async def put(self, entry: HistoryEntry) -> None:
        """Wait until the scheduler has written the entry; raises ``NackMessage`` when it will not."""
        if self._closed:
            raise NackMessage
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, written))
        self._news()
        await written

    def open(self) -> None:
        """Take entries."""
        self._closed = False

    def close(self) -> None:
        """Give back what is not known to be written. In the loop; FastStream waits for its handlers."""
        self._closed = True
        for written in (*self._taken, *(written for _, written in self._waiting)):
            if not written.done():
                written.set_exception(NackMessage())

    def take(self) -> list[HistoryEntry]:
        """
        Return the entries that arrived since the last call, and confirm those it returned.

        Airflow's loop commits audit log entries between two heartbeats of an executor.
        """
        for written in self._taken:
            with suppress(RuntimeError):  # its event loop has ended: delivered again, elsewhere
                written.get_loop().call_soon_threadsafe(_confirm, written)
        arrived = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._taken = [written for _, written in arrived]
        return [entry for entry, _ in arrived]


def _confirm(written: asyncio.Future[None]) -> None:
    if not written.done():
        written.set_result(None)


def subscribe(broker: NatsBroker, queue: HistoryQueue, find_agent: FindAgent) -> None:
    """Add the subscriber to the broker; it begins when the broker is started."""
    subscriber = broker.subscriber(
        SUBJECT,
        stream=JStream(EVENTS_STREAM, declare=False),
        durable=CONSUMER,
        pull_sub=PullSub(batch_size=BATCH),
        config=ConsumerConfig(
            filter_subject=SUBJECT,
            ack_wait=WRITTEN_WITHIN_SECONDS,
            max_deliver=_MAX_DELIVERIES,
            deliver_policy=DeliverPolicy.BY_START_TIME,
            opt_start_time=datetime.now(UTC) - LOOK_BACK,
        ),
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=_undecoded,
        no_reply=True,
    )

    @subscriber
    async def write_history(data: bytes) -> None:
        if entry := read_entry(data, find_agent):
            with receiving(SUBJECT, "process", entry.traceparent):
                await queue.put(entry)


async def has_consumer(js: JetStreamContext) -> bool:
    """Say whether the consumer is there; FastStream would wait for a lost one for ever."""
    try:
        await answered(js.consumer_info(EVENTS_STREAM, CONSUMER))
    except NotFoundError:
        return False
    return True


async def _undecoded(message: NatsMessage) -> bytes:
    # Decoding takes two steps of our own, so that what cannot be decoded is not FastStream's to reject.
    return message.body


def read_entry(data: bytes, find_agent: FindAgent) -> HistoryEntry | None:
    """Return the audit log entry of an event, or None when it has none."""
    try:
        envelope = open_envelope(data)
        if envelope.type not in {told.TYPE for told in TOLD}:
            return None
        body: Told = read_body(envelope, *TOLD)
    except MessageError as exc:
        log.warning("history.event_set_aside", reason=str(exc), stream=EVENTS_STREAM)
        return None
    if isinstance(body, WorkloadReleased) and body.action == REROUTE:
        return None  # the bridge tells it, in the transaction that does it
    return _entry_of(body, envelope, find_agent) if body.coordinates.task_id else None


def _entry_of(body: Told, envelope: Envelope, find_agent: FindAgent) -> HistoryEntry:
    facts: dict[str, Any] = {"queue": body.queue, "at": envelope.time.isoformat()}
    if isinstance(body, WorkloadLeased | WorkloadFinished | WorkloadReleased):
        agent = find_agent(body.agent)
        lease = str(LeaseKey(body.workload_id, body.epoch))
        facts = {"agent": body.agent, "site": agent.site if agent else "", **facts, "lease": lease}
    else:
        facts["reason"] = body.reason
    if isinstance(body, WorkloadFinished):
        facts |= {"outcome": body.outcome, "exit_code": body.exit_code, "reason": body.reason}
    if isinstance(body, WorkloadReleased):
        facts |= {"action": body.action, "reason": body.reason}
    if isinstance(body, WorkloadMoved):
        facts["to"] = body.to
    extra = json.dumps({name: value for name, value in facts.items() if value not in ("", None)})
    return HistoryEntry(
        event=f"jetbridge.{body.TYPE.removeprefix('workload.')}",
        coordinates=body.coordinates,
        extra=extra,
        traceparent=envelope.traceparent,
    )
