"""
Callbacks for Dag processors: read by agents, and deleted once their end was reported.

Airflow's own processor deletes a request when it takes it (``_fetch_callbacks_from_db``) and runs it in the
same process. Between us and whoever runs it lies a network, and an answer that is lost would be an alert
that nobody gets. So a request stays until somebody says that it ended; a lost agent costs a second run.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import msgspec
import structlog
from airflow.models.db_callback_request import DbCallbackRequest
from sqlalchemy import select
from sqlalchemy.orm import Session

from jetbridge.contracts.dag_processing import Callback

log = structlog.get_logger(__name__)


def forget(session: Session, done: Collection[str]) -> None:
    """Delete requests that have ended. Those that are gone already are no matter."""
    if not done:
        return
    ended = select(DbCallbackRequest).where(DbCallbackRequest.id.in_([UUID(one) for one in done]))
    for row in session.scalars(ended):
        session.delete(row)


def waiting(
    session: Session, bundles: Collection[str], running: Collection[str], limit: int
) -> tuple[Callback, ...]:
    """Return requests that nobody runs, most urgent first, as Airflow orders them."""
    query = (
        select(DbCallbackRequest)
        .where(
            DbCallbackRequest.bundle_name.in_(bundles),
            DbCallbackRequest.id.not_in([UUID(one) for one in running]),
        )
        .order_by(DbCallbackRequest.priority_weight.desc())
        .limit(limit)
    )
    return tuple(callback for row in session.scalars(query) if (callback := _callback(session, row)))


def _callback(session: Session, row: DbCallbackRequest) -> Callback | None:
    try:
        request = row.get_callback_request()
    except Exception:
        # Airflow's own processor stops at such a row for ever; nobody will ever be able to run it.
        log.exception("callback request cannot be read and is dropped", callback=str(row.id))
        session.delete(row)
        return None
    return Callback(
        id=str(row.id), kind=type(request).__name__, request=msgspec.Raw(request.to_json().encode())
    )
