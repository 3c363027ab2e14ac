"""Asking the bridge to put a task back into Airflow's queue."""

from __future__ import annotations

import structlog

from jetbridge.bus.rpc import RpcClient, RpcRefusedError
from jetbridge.contracts.failover import (
    REQUEUE_AREA,
    REQUEUE_OPERATION,
    RequeueOutcome,
    RequeueWorkload,
    WorkloadRequeued,
)
from jetbridge.contracts.records import WorkloadRecord
from jetbridge.contracts.rpc import rpc_subject
from jetbridge.router.rounds import Requeue, RequeueError

log = structlog.get_logger(__name__)

SUBJECT = rpc_subject(REQUEUE_AREA, REQUEUE_OPERATION)


def through_bridge(rpc: RpcClient, timeout_seconds: float) -> Requeue:
    """Return a function that asks the bridge; an answer that never came is asked for again next round."""

    async def requeue(record: WorkloadRecord) -> None:
        request = RequeueWorkload(
            workload_id=record.workload_id,
            kind=record.kind,
            epoch=record.epoch,
            agent=record.agent or "",
            reason=record.reason,
        )
        try:
            answer = await rpc.ask(
                SUBJECT, request, WorkloadRequeued, agent=record.agent or "", timeout_seconds=timeout_seconds
            )
        except RpcRefusedError as exc:
            raise RequeueError(str(exc)) from exc
        if answer.outcome != RequeueOutcome.REQUEUED:
            log.info("workload.not_requeued", workload=record.workload_id, detail=answer.detail)

    return requeue
