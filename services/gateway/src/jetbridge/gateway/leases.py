"""
Accepting offers and reporting ends. Each step may be the last one this process takes.

accept, when the process dies after …

=========================================  ==============================================================
1. nothing                                 the offer expires and is made to somebody else
2. the record says ``leased``              work is delivered again; the next gateway sees the record and
                                           acknowledges. The agent's retry finds its lease and goes on
3. the message was acknowledged            the agent's retry finds its lease and goes on
4. the event was published                 the retry's event has the same id and is dropped by JetStream
=========================================  ==============================================================

report, when the process dies after …

=========================================  ==============================================================
1. nothing                                 the agent's retry does everything
2. the record says ``finished``            the retry finds what was recorded and publishes the event; the
                                           executor already has the end from the record
3. the event was published                 the retry's event has the same id and is dropped by JetStream
=========================================  ==============================================================

No answer means no confirmation, so a retry always comes, unless the agent dies too: then the lease runs
out like any other. A retry may go through any gateway.
"""

from __future__ import annotations

from collections.abc import Callable

from jetbridge.bus.workloads import Terms, VersionedWorkload, WorkloadStore, terms_of
from jetbridge.contracts.api import ReportRequest
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome, WorkloadFinished, WorkloadLeased
from jetbridge.contracts.records import WorkloadRecord
from jetbridge.telemetry.tracing import current_traceparent


async def accept(
    store: WorkloadStore,
    lease: LeaseKey,
    agent: str,
    seen: VersionedWorkload | None = None,
    terms: Callable[[WorkloadRecord], Terms] = terms_of,
) -> WorkloadRecord:
    """
    Turn an offer into a lease on ``terms`` and tell the plane; repeating it is harmless.

    ``seen`` is the record as the mirror has it, which usually saves a read. Raises ``LeaseLostError``,
    ``ConflictError`` and ``BusUnavailableError``.
    """
    record = await store.accept(lease, agent, seen, terms)
    event = WorkloadLeased(
        workload_id=lease.workload_id,
        epoch=lease.epoch,
        agent=agent,
        queue=record.queue,
        coordinates=record.coordinates,
    )
    await store.publish_event(event, f"{lease}.leased", current_traceparent())
    return record


async def report(
    store: WorkloadStore,
    lease: LeaseKey,
    agent: str,
    request: ReportRequest,
    seen: VersionedWorkload | None = None,
) -> WorkloadRecord:
    """
    Record the end of a lease and tell the plane; repeating it keeps what the first report said.

    ``seen`` is the record as the mirror has it, which usually saves a read. Raises ``LeaseLostError``,
    ``ConflictError`` and ``BusUnavailableError``.
    """
    if request.outcome is Outcome.ABANDONED:
        record = await store.abandon(lease, agent, request.reason)
    else:
        record = await store.finish(lease, agent, request.outcome, request.exit_code, request.reason, seen)
    event = WorkloadFinished(
        workload_id=lease.workload_id,
        epoch=lease.epoch,
        agent=agent,
        queue=record.queue,
        coordinates=record.coordinates,
        outcome=record.outcome or request.outcome,
        exit_code=record.exit_code,
        reason=record.reason,
    )
    await store.publish_event(event, f"{lease}.finished", current_traceparent())
    return record
