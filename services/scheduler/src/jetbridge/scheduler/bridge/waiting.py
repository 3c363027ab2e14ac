"""
Keeps Airflow's scheduler from failing tasks under ``wait`` for heartbeats that cannot arrive.

The scheduler fails a running task of which it has had no heartbeat for ``[scheduler]
task_instance_heartbeat_timeout`` (300 s). A task under ``wait`` goes on for longer than that while nobody
can hear it, so its lease stands in: as long as the record says that it is held, the bridge notes a
heartbeat whenever the task's own are late. The router ends the lease when the wait is over, and that ends
this, too.

For Airflow 3.3. There is no hook: the scheduler asks the database, so the only way is the column its
question is about, written as Airflow's own ``ti_heartbeat`` writes it.
``tests/integration/triggers/test_waiting_tasks.py`` asks Airflow's scheduler itself and fails when it asks
in another way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from airflow._shared.timezones import timezone
from airflow.configuration import conf
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from jetbridge.bus.kv import Versioned
from jetbridge.bus.mirror import BucketMirror
from jetbridge.contracts.messages import WorkloadKind
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.scheduler.bridge.database import Database
from jetbridge.scheduler.bridge.errors import is_outage

log = structlog.get_logger(__name__)

LATE_SHARE = 1 / 3
"""Share of Airflow's time-out after which a task's own heartbeat is late."""

LOOK_SHARE = 1 / 10
"""Share of it between two looks: a late heartbeat is noted before half of the time-out is over."""

_AT_ONCE = 500
"""Task instances in one statement."""


def waiting(workloads: Iterable[tuple[str, Versioned[WorkloadRecord]]]) -> list[UUID]:
    """Return the task instances whose lease waits for a silent agent, or would."""
    return [
        UUID(entry.record.workload_id)
        for _, entry in workloads
        if entry.record.state is WorkloadState.LEASED
        and entry.record.lease_seconds
        and entry.record.kind is WorkloadKind.TASK
    ]


def note_heartbeats(session: Session, ids: Sequence[UUID], late_after: timedelta) -> int:
    """Note a heartbeat for those of the task instances that run and whose own is late; return how many."""
    now = timezone.utcnow()
    noted = 0
    for begin in range(0, len(ids), _AT_ONCE):
        result: CursorResult[Any] = session.execute(  # type: ignore[assignment]  # what an UPDATE returns
            update(TaskInstance)
            .where(
                TaskInstance.id.in_(ids[begin : begin + _AT_ONCE]),
                TaskInstance.state.in_((TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)),
                TaskInstance.last_heartbeat_at < now - late_after,
            )
            .values(last_heartbeat_at=now)
            .execution_options(synchronize_session=False)
        )
        noted += result.rowcount
    return noted


async def stand_in(database: Database, workloads: BucketMirror[WorkloadRecord]) -> None:
    """
    Run until cancelled.

    The records as last seen count even while NATS is away: without NATS none can change. Several bridges may
    do this; noting twice is noting once.
    """
    timeout = conf.getint("scheduler", "task_instance_heartbeat_timeout")
    late_after, trouble = timedelta(seconds=timeout * LATE_SHARE), False
    while True:
        await asyncio.sleep(timeout * LOOK_SHARE)
        if not (ids := waiting(workloads.items())):
            continue
        try:
            noted = await database.transaction(note_heartbeats, ids, late_after)
            trouble = False
        except Exception as exc:  # an error of this look must not end all that follow
            if not trouble:
                log.warning("heartbeats not noted", exc_info=None if is_outage(exc) else exc, tasks=len(ids))
            trouble = True
        else:
            if noted:
                log.info("heartbeats noted for tasks that wait", tasks=noted)
