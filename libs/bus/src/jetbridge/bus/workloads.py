"""
The records of workloads, and the only code that moves them.

submitted → offered → leased → finished → (deleted). Every move is one compare-and-set on the record's
revision, so a process may die between any two of them: the next one to look finds a record in one of
four states and a message that is either still in WORK or will be delivered again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import ConflictError, LeaseLostError
from jetbridge.bus.kv import RecordBucket, Versioned, answered
from jetbridge.bus.spans import sending
from jetbridge.contracts.envelope import Body, Envelope, seal, seal_again
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome, TaskCoordinates, WorkloadKind, WorkloadSubmitted
from jetbridge.contracts.records import OnAgentLost, WorkloadRecord, WorkloadState
from jetbridge.contracts.subjects import WORKLOADS_BUCKET, Band, event_subject, lane_of, work_subject

VersionedWorkload = Versioned[WorkloadRecord]

_CAS_ATTEMPTS = 5
"""Races on one record are between a handful of processes; losing five in a row means something is wrong."""


FAILS_WHEN_LOST = frozenset({OnAgentLost.FAIL, OnAgentLost.WAIT})
"""
What is not run again by us. ``wait`` is for work that cannot be repeated: once there is nothing more to wait
for, nobody knows how far it came, and the task's own retries say whether it may be run again.
"""


def submission_of(workload: VersionedWorkload) -> int:
    """Return the submission a record belongs to; its first write could not know its own revision."""
    return workload.record.submission or workload.revision


class NewWorkload(msgspec.Struct, frozen=True, kw_only=True):
    """What the executor hands over. ``spec`` is Airflow's workload as JSON, without its token."""

    workload_id: str
    kind: WorkloadKind
    queue: str
    priority_weight: int
    coordinates: TaskCoordinates
    spec: bytes
    on_agent_lost: OnAgentLost | None = None
    wait_seconds: float = 0.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for one lease from its accept to its end; see :class:`WorkloadRecord`."""

    on_agent_lost: OnAgentLost = OnAgentLost.REROUTE
    wait_seconds: float = 0.0
    lease_seconds: float = 0.0


def terms_of(record: WorkloadRecord) -> Terms:
    """Return the terms of a lease on which no policy has a say."""
    return Terms(on_agent_lost=record.on_agent_lost or OnAgentLost.REROUTE)


class WorkloadStore:
    """Moves workload records and publishes what goes with each move."""

    def __init__(self, bus: Bus, bucket: RecordBucket[WorkloadRecord]) -> None:
        """Use :meth:`open` instead."""
        self._bus = bus
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> WorkloadStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(WORKLOADS_BUCKET)
        return cls(bus, RecordBucket(bus.js, kv, WORKLOADS_BUCKET, WorkloadRecord))

    async def get(self, workload_id: str) -> VersionedWorkload | None:
        """Return the record as it is now."""
        return await self.bucket.get(workload_id)

    async def submit(self, workload: NewWorkload, traceparent: str | None = None) -> int:
        """
        Write the record, then publish the work; returns the submission once both are acknowledged.

        A record of an earlier life (the same task instance, deferred and resumed, or queued again) is
        overwritten, which fences whoever still holds it. Dying in between leaves a submitted record
        without a message; adoption or the next submit of the same workload takes care of it.
        """
        submission = await self.write_submitted(workload)
        await self.publish_work(workload, submission, traceparent)
        return submission

    async def write_submitted(self, workload: NewWorkload) -> int:
        """
        Write the record of a submission and return its revision; the first half of :meth:`submit`.

        May be repeated when its answer was lost: without a message nobody can have taken the first one.
        """
        record = WorkloadRecord(
            workload_id=workload.workload_id,
            kind=workload.kind,
            state=WorkloadState.SUBMITTED,
            queue=workload.queue,
            coordinates=workload.coordinates,
            on_agent_lost=workload.on_agent_lost,
            wait_seconds=workload.wait_seconds,
            changed_at=datetime.now(UTC),
        )
        for attempt in range(_CAS_ATTEMPTS):
            # Most workloads are new, so the first try spares the round trip of a look.
            current = await self.get(workload.workload_id) if attempt else None
            try:
                if current is None:
                    return await self.bucket.create(workload.workload_id, record)
                return await self.bucket.update(workload.workload_id, record, current.revision)
            except ConflictError:
                continue
        msg = f"workload {workload.workload_id}: the record keeps changing under the submit"
        raise ConflictError(msg)

    async def publish_work(self, workload: NewWorkload, submission: int, traceparent: str | None) -> None:
        """
        Publish the message of a submission; the second half of :meth:`submit`.

        May be repeated when its answer was lost, which :meth:`submit` may not: by then an agent may hold
        the work, and a new record would fence it. A second message of one submission changes nothing.
        """
        message_id = f"{workload.workload_id}.{submission}"
        body = WorkloadSubmitted(
            workload_id=workload.workload_id,
            submission=submission,
            kind=workload.kind,
            queue=workload.queue,
            coordinates=workload.coordinates,
            spec=msgspec.Raw(workload.spec),
        )
        subject = work_subject(lane_of(workload.queue), Band.of(workload.priority_weight))
        await self._publish(subject, body, message_id, traceparent)

    async def move(
        self, workload: VersionedWorkload, message: tuple[Envelope, WorkloadSubmitted], band: Band, to: str
    ) -> None:
        """
        Have waiting work wait in the lane of queue ``to``.

        The caller holds ``message``, unacknowledged, and acknowledges it afterwards. First comes the copy in
        the other lane, under an id that a repetition after a crash shares, then the record; dying in between
        leaves two messages of one submission, which changes nothing. A record that moved on meanwhile,
        because somebody took the copy, is left as it is: their offer says where it was made.
        """
        envelope, submitted = message
        record = workload.record
        message_id = f"{record.workload_id}.{submitted.submission}.{workload.revision}"
        copy = seal_again(envelope, msgspec.structs.replace(submitted, queue=to), message_id)
        await self._publish_sealed(work_subject(lane_of(to), band), copy, message_id, envelope.traceparent)
        moved = msgspec.structs.replace(
            record,
            state=WorkloadState.SUBMITTED,
            submission=submitted.submission,
            moved_to=_other_than(record.queue, to),
            starving=False,
            agent=None,
            instance="",
            ack=None,
            changed_at=datetime.now(UTC),
        )
        with suppress(ConflictError):
            await self.bucket.update(record.workload_id, moved, workload.revision)

    async def note_starving(self, workload: VersionedWorkload) -> None:
        """
        Record that the history of a waiting workload says that nobody can take it.

        Raises :class:`ConflictError` when the record moved on.
        """
        noted = msgspec.structs.replace(
            workload.record, submission=submission_of(workload), starving=True, changed_at=datetime.now(UTC)
        )
        await self.bucket.update(noted.workload_id, noted, workload.revision)

    async def offer(
        self, workload: VersionedWorkload, agent: str, ack: str, instance: str = "", *, queue: str = ""
    ) -> LeaseKey:
        """
        Offer the workload to ``agent``; the revision of this write becomes the lease's epoch.

        ``ack`` is the reply subject of the delivery, kept in the record so that whichever gateway
        takes the accept can acknowledge. ``queue`` is the one in whose lane the message was, if that is not
        the workload's own. Raises :class:`ConflictError` when the record moved on.
        """
        record = msgspec.structs.replace(
            workload.record,
            state=WorkloadState.OFFERED,
            moved_to=_other_than(workload.record.queue, queue),
            submission=submission_of(workload),
            agent=agent,
            instance=instance,
            ack=ack,
            epoch=0,
            changed_at=datetime.now(UTC),
        )
        revision = await self.bucket.update(record.workload_id, record, workload.revision)
        return LeaseKey(record.workload_id, revision)

    async def accept(
        self,
        lease: LeaseKey,
        agent: str,
        seen: VersionedWorkload | None = None,
        terms: Callable[[WorkloadRecord], Terms] = terms_of,
    ) -> WorkloadRecord:
        """
        Turn an offer into a lease on ``terms``; repeating it is harmless and keeps the terms it has.

        ``seen`` is the record as a mirror has it: while it still is so, one read is saved, and when it is
        not, the compare-and-set tells. Raises :class:`LeaseLostError` when the offer was not made to
        ``agent`` or has been overtaken.
        """
        current = seen if seen and _offered(seen, lease, agent) else await self.get(lease.workload_id)
        for _ in range(_CAS_ATTEMPTS):
            if current and holds(current.record, lease, agent):
                await self._acknowledge(current.record)
                return current.record
            if not (current and _offered(current, lease, agent)):
                msg = f"lease {lease} is not offered to agent {agent!r} any more"
                raise LeaseLostError(msg)
            record = msgspec.structs.replace(
                current.record,
                state=WorkloadState.LEASED,
                epoch=lease.epoch,
                changed_at=datetime.now(UTC),
                **msgspec.structs.asdict(terms(current.record)),
            )
            try:
                await self.bucket.update(lease.workload_id, record, current.revision)
            except ConflictError:
                current = await self.get(lease.workload_id)
                continue
            await self._acknowledge(record)
            return record
        msg = f"lease {lease}: the record keeps changing under the accept"
        raise ConflictError(msg)

    async def _acknowledge(self, record: WorkloadRecord) -> None:
        # Fire and forget: a lost acknowledgement makes JetStream deliver again, and the gateway that
        # gets the message finds the record leased and acknowledges then.
        if record.ack:
            await answered(self._bus.client.publish(record.ack, b"+ACK"))

    async def finish(  # noqa: PLR0913, PLR0917 - what a report says, and who says it of what
        self,
        lease: LeaseKey,
        agent: str,
        outcome: Outcome,
        exit_code: int | None,
        reason: str,
        seen: VersionedWorkload | None = None,
    ) -> WorkloadRecord:
        """
        Record the end of a lease; repeating it is harmless and keeps what the first report said.

        ``seen`` is the record as a mirror has it; see :meth:`accept`. Raises :class:`LeaseLostError` when
        ``agent`` does not hold the lease.
        """
        current = seen if seen and holds(seen.record, lease, agent) else await self.get(lease.workload_id)
        for _ in range(_CAS_ATTEMPTS):
            if current is None or not _ran(current.record, lease, agent):
                msg = f"lease {lease} is not held by agent {agent!r}"
                raise LeaseLostError(msg)
            if current.record.state is WorkloadState.FINISHED:
                return current.record
            record = msgspec.structs.replace(
                current.record,
                state=WorkloadState.FINISHED,
                outcome=outcome,
                exit_code=exit_code,
                reason=reason,
                ack=None,
                changed_at=datetime.now(UTC),
            )
            try:
                await self.bucket.update(lease.workload_id, record, current.revision)
            except ConflictError:
                current = await self.get(lease.workload_id)
                continue
            return record
        msg = f"lease {lease}: the record keeps changing under the report"
        raise ConflictError(msg)

    async def release(self, lease: LeaseKey, reason: str) -> WorkloadRecord:
        """
        Take a lease back: whatever its agent thinks, it is fenced from now on. Repeating it is harmless.

        The caller must know that the agent runs it no more. Raises :class:`LeaseLostError` when the lease
        is over already.
        """
        for _ in range(_CAS_ATTEMPTS):
            current = await self.get(lease.workload_id)
            if current is None or current.record.epoch != lease.epoch:
                break
            if current.record.state is WorkloadState.RELEASED:
                return current.record
            if current.record.state is not WorkloadState.LEASED:
                break
            record = msgspec.structs.replace(
                current.record, state=WorkloadState.RELEASED, reason=reason, changed_at=datetime.now(UTC)
            )
            try:
                await self.bucket.update(lease.workload_id, record, current.revision)
            except ConflictError:
                continue
            return record
        msg = f"lease {lease} is over"
        raise LeaseLostError(msg)

    async def remove(self, workload_id: str) -> None:
        """
        Delete the record in whatever state it is: seen to its end, or revoked.

        An agent that holds the lease learns it from its open poll; work still in WORK is dropped when
        it is next pulled.
        """
        for _ in range(_CAS_ATTEMPTS):
            current = await self.get(workload_id)
            if current is None:
                return
            try:
                await self.bucket.delete(workload_id, current.revision)
            except ConflictError:
                continue
            return
        msg = f"workload {workload_id}: the record keeps changing under the removal"
        raise ConflictError(msg)

    async def abandon(self, lease: LeaseKey, agent: str, reason: str) -> WorkloadRecord:
        """
        Record that ``agent`` let go of a lease: it is released, or failed if its terms say so.

        Repeating it is harmless. Raises :class:`LeaseLostError` when ``agent`` does not hold the lease.
        """
        current = await self.get(lease.workload_id)
        if current is None or current.record.agent != agent or current.record.epoch != lease.epoch:
            msg = f"lease {lease} is not held by agent {agent!r}"
            raise LeaseLostError(msg)
        if current.record.on_agent_lost in FAILS_WHEN_LOST:
            return await self.finish(lease, agent, Outcome.FAILED, None, reason)
        return await self.release(lease, reason)

    async def remove_released(self, lease: LeaseKey) -> None:
        """Delete the record of a released lease; anything newer under the same workload id stays."""
        current = await self.get(lease.workload_id)
        if current is None or current.record.epoch != lease.epoch:
            return
        if current.record.state is WorkloadState.RELEASED:
            await self.bucket.delete(lease.workload_id, current.revision)

    async def publish_event(self, body: Body, message_id: str, traceparent: str | None = None) -> None:
        """Publish to EVENTS and wait for the acknowledgement; the same ``message_id`` is kept once."""
        subject = event_subject(body.TYPE)
        with sending(subject, message_id, traceparent) as continued:
            await self._publish(subject, body, message_id, continued)

    async def _publish(self, subject: str, body: Body, message_id: str, traceparent: str | None) -> None:
        data = seal(body, message_id=message_id, traceparent=traceparent)
        await self._publish_sealed(subject, data, message_id, traceparent)

    async def _publish_sealed(
        self, subject: str, data: bytes, message_id: str, traceparent: str | None
    ) -> None:
        headers = {"Nats-Msg-Id": message_id}
        if traceparent:
            headers["traceparent"] = traceparent
        await answered(self._bus.js.publish(subject, data, headers=headers))


def _other_than(own: str, queue: str) -> str:
    """Return the queue that work is in if it is not its own."""
    return "" if queue == own else queue


def holds(record: WorkloadRecord, lease: LeaseKey, agent: str) -> bool:
    """Say whether ``agent`` holds exactly this lease."""
    return record.state is WorkloadState.LEASED and record.epoch == lease.epoch and record.agent == agent


def _ran(record: WorkloadRecord, lease: LeaseKey, agent: str) -> bool:
    ended_or_running = record.state in (WorkloadState.LEASED, WorkloadState.FINISHED)
    return ended_or_running and record.epoch == lease.epoch and record.agent == agent


def _offered(workload: VersionedWorkload, lease: LeaseKey, agent: str) -> bool:
    record = workload.record
    return (
        record.state is WorkloadState.OFFERED and workload.revision == lease.epoch and record.agent == agent
    )
