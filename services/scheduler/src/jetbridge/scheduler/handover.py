"""
Handing a workload over in steps that may each be repeated, by this process or by the next.

First the record, then the message. The record is written until that is acknowledged: as long as there is
no message, nobody can have taken it. The message is published until *that* is acknowledged, always under
the same id: once it is out an agent may hold the work, and writing the record again would fence it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import msgspec

from jetbridge.bus.errors import ConflictError
from jetbridge.bus.workloads import NewWorkload, VersionedWorkload, WorkloadStore, submission_of
from jetbridge.contracts.records import WorkloadState
from jetbridge.scheduler.retry import Persistence


async def submit(persist: Persistence, workload: NewWorkload, traceparent: str | None) -> int:
    """Hand over anew, fencing whatever life the workload had before; return the submission."""
    submission = await persist(lambda store: store.write_submitted(workload))
    await persist(lambda store: store.publish_work(workload, submission, traceparent))
    return submission


async def resume(
    persist: Persistence, workload: NewWorkload, queued_at: datetime, traceparent: str | None
) -> int:
    """
    Finish what a scheduler that died may have begun; return the submission.

    The task is QUEUED in Airflow's database, since ``queued_at``. Its record says how far that scheduler
    got: no record, not begun; submitted, the message may be missing; offered or leased, done.
    """
    current = await persist(lambda store: store.get(workload.workload_id))
    if current is None or _is_of_an_earlier_life(current, queued_at):
        return await submit(persist, workload, traceparent)
    submission = submission_of(current)
    if current.record.state is WorkloadState.SUBMITTED:
        await persist(lambda store: store.publish_work(workload, submission, traceparent))
    return submission


def _is_of_an_earlier_life(current: VersionedWorkload, queued_at: datetime) -> bool:
    """
    Tell whether the record belongs to an earlier life of the same task instance.

    A deferred task and a rescheduled sensor come back under their old id, maybe before the end of the
    process that deferred was reported. That process was leased before the task was queued again. One that
    has ended while its task is queued either deferred, or was lost before it started the task.
    """
    record = current.record
    if record.state is WorkloadState.LEASED:
        return record.changed_at < queued_at
    return record.state not in (WorkloadState.SUBMITTED, WorkloadState.OFFERED)


async def remove(store: WorkloadStore, workload_id: str, submission: int | None) -> None:
    """Delete the record while it is of ``submission``, in whatever state; of any if that is None."""
    while (current := await store.get(workload_id)) and submission in (None, submission_of(current)):
        with suppress(ConflictError):  # it moved meanwhile, or was submitted again: look once more
            await store.bucket.delete(workload_id, current.revision)
            return


async def exists(store: WorkloadStore, workload_id: str) -> bool:
    """Say whether there is a record, readable by this version or not."""
    try:
        return await store.get(workload_id) is not None
    except msgspec.DecodeError:
        return True
