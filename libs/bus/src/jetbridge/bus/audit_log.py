"""The audit of the boundary on its stream: written in chains, read in order, checked for gaps and changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import api

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.kv import answered
from jetbridge.bus.topology import AUDIT_MAX_AGE_SECONDS
from jetbridge.contracts.audit import FIRST_PREVIOUS, BoundaryAudited, BoundaryCount, body_hash
from jetbridge.contracts.envelope import MessageError, open_envelope, read_body, seal
from jetbridge.contracts.subjects import AUDIT_STREAM, audit_subject

_READ_SECONDS = 10.0
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One message of the stream, in its place. ``record`` is None when it cannot be read."""

    place: int
    written: datetime
    body: bytes
    record: BoundaryAudited | None


class ChainWriter:
    """
    Writes one gateway's chain, one record after the other.

    A record is published until it is acknowledged, always the same bytes under the same message id, so a
    lost acknowledgement makes no second one.
    """

    def __init__(self, bus: Bus, gateway: str) -> None:
        self._bus = bus
        self._gateway = gateway
        self._sequence = 0
        self._previous = FIRST_PREVIOUS
        self._waiting: list[BoundaryAudited] = []

    def add(self, counts: Iterable[BoundaryCount], *, closed: bool = False) -> None:
        """Put a record at the end of the chain; :meth:`flush` writes it."""
        self._sequence += 1
        record = BoundaryAudited(
            gateway=self._gateway,
            sequence=self._sequence,
            previous=self._previous,
            until=datetime.now(UTC),
            counts=tuple(counts),
            closed=closed,
        )
        self._previous = body_hash(_encoder.encode(record))
        self._waiting.append(record)

    @property
    def waiting(self) -> int:
        """Return how many records were not written yet."""
        return len(self._waiting)

    async def flush(self) -> None:
        """Write what waits; raises ``BusError`` when NATS does not take it, and nothing is lost then."""
        while self._waiting:
            record = self._waiting[0]
            message_id = f"{record.gateway}.{record.sequence}"
            await answered(
                self._bus.js.publish(
                    audit_subject(self._gateway),
                    seal(record, message_id=message_id),
                    headers={"Nats-Msg-Id": message_id},
                )
            )
            del self._waiting[0]


async def read_audit(bus: Bus, since: datetime | None = None) -> AsyncIterator[Entry]:
    """Yield every message of the stream, oldest first, up to what was the last when it began."""
    info = await answered(bus.js.stream_info(AUDIT_STREAM))
    last = info.state.last_seq
    if not info.state.messages:
        return
    config = api.ConsumerConfig(
        deliver_policy=api.DeliverPolicy.BY_START_TIME if since else api.DeliverPolicy.ALL,
        opt_start_time=since.isoformat().replace("+00:00", "Z") if since else None,  # type: ignore[arg-type]
    )
    subscription = await answered(
        bus.js.subscribe("audit.>", stream=AUDIT_STREAM, ordered_consumer=True, config=config)
    )
    try:
        known = await subscription.consumer_info()
        # What was delivered already, and waits in this process, is not pending any more.
        if not known.num_pending and not (known.delivered and known.delivered.consumer_seq):
            return
        while True:
            entry = _entry(await _next(subscription))
            yield entry
            if entry.place >= last:
                return
    finally:
        await subscription.unsubscribe()


async def _next(subscription: object) -> Msg:
    try:
        message: Msg = await subscription.next_msg(_READ_SECONDS)  # type: ignore[attr-defined]
    except NatsTimeoutError as exc:
        raise BusUnavailableError("NATS stopped delivering the audit before its end") from exc
    return message


def _entry(message: Msg) -> Entry:
    metadata = message.metadata
    body, record = message.data, None
    try:
        envelope = open_envelope(message.data)
        body, record = bytes(envelope.body), read_body(envelope, BoundaryAudited)
    except MessageError:
        pass
    return Entry(place=metadata.sequence.stream, written=metadata.timestamp, body=body, record=record)


Head = tuple[int, str]
"""Sequence and hash of a chain's last record."""


@dataclass(kw_only=True)
class Chain:
    """What is known of one gateway's chain after reading the stream."""

    first: int
    began: datetime
    sequence: int = 0
    head: str = FIRST_PREVIOUS
    closed: bool = False


class Verifier:
    """Follows all chains through the stream and collects what is wrong with them."""

    def __init__(self, expected: Mapping[str, Head] | None = None) -> None:
        """Begin; ``expected`` are heads seen before: their records must still be there."""
        self.chains: dict[str, Chain] = {}
        self.problems: list[str] = []
        self._missing = dict(expected or {})

    def take(self, entry: Entry) -> None:
        """Look at the next message of the stream."""
        record = entry.record
        if record is None:
            self.problems.append(f"message {entry.place} cannot be read: changed, or of a newer version")
            return
        digest = body_hash(entry.body)
        if self._missing.get(record.gateway) == (record.sequence, digest):
            del self._missing[record.gateway]
        chain = self.chains.get(record.gateway)
        if chain is None:
            chain = self.chains[record.gateway] = Chain(first=record.sequence, began=entry.written)
            problem = _wrong_beginning(record)
        elif (chain.sequence, chain.head) == (record.sequence, digest):
            return  # the same bytes twice: an acknowledgement was lost for longer than NATS remembers ids
        else:
            problem = _difference(chain, record)
        if problem:
            self.problems.append(
                f"{record.gateway}: message {entry.place}, record {record.sequence}: {problem}"
            )
        chain.sequence, chain.head, chain.closed = record.sequence, digest, record.closed

    def finish(self, now: datetime) -> list[str]:
        """Return every problem. The beginning of a chain may be gone when it was old enough to expire."""
        oldest = now - timedelta(seconds=AUDIT_MAX_AGE_SECONDS) + timedelta(days=1)
        for name, chain in self.chains.items():
            if chain.first > 1 and chain.began > oldest:
                self.problems.append(
                    f"{name}: records before {chain.first} are gone and were not old enough to expire"
                )
        for name, (sequence, head) in self._missing.items():
            self.problems.append(f"{name}: record {sequence} with hash {head} was there and is not now")
        return self.problems


def _wrong_beginning(record: BoundaryAudited) -> str:
    if record.sequence == 1 and record.previous != FIRST_PREVIOUS:
        return "the first record refers to one before it"
    return ""


def _difference(chain: Chain, record: BoundaryAudited) -> str:
    if record.sequence > chain.sequence + 1:
        return f"records {chain.sequence + 1} to {record.sequence - 1} are missing"
    if record.sequence <= chain.sequence:
        return f"it comes after record {chain.sequence}"
    if record.previous != chain.head:
        return "the record before it was changed"
    return "it comes after the last one" if chain.closed else ""


Row = tuple[str, str, str, str, str]
"""Class, outcome, agent, site, operation."""


class Totals:
    """Counts and bytes of each row, of one site or of all."""

    def __init__(self, site: str | None = None) -> None:
        self._site = site
        self._rows: defaultdict[Row, tuple[int, int]] = defaultdict(lambda: (0, 0))
        self._last: dict[str, int] = {}

    def take(self, entry: Entry) -> None:
        """Add what a record counted; one that is there twice counts once."""
        record = entry.record
        if record is None or record.sequence <= self._last.get(record.gateway, 0):
            return
        self._last[record.gateway] = record.sequence
        for one in record.counts:
            if self._site is None or one.site == self._site:
                row = (one.data, one.outcome, one.agent, one.site, one.operation)
                count, size = self._rows[row]
                self._rows[row] = (count + one.count, size + one.bytes)

    def rows(self) -> dict[Row, tuple[int, int]]:
        """Return all rows in order."""
        return dict(sorted(self._rows.items()))
