"""Metrics that are looked up when somebody asks: what is true of the plane, and not of this process."""

from __future__ import annotations

from jetbridge.contracts.records import TokenRecord
from jetbridge.gateway.depth import Depths, waited_seconds
from jetbridge.gateway.known import Known
from jetbridge.gateway.metrics import GatewayMetrics


def refresh(metrics: GatewayMetrics, depths: Depths, tokens: Known[TokenRecord]) -> None:
    """Set the gauges of queues and tokens; what is gone is shown no more."""
    for gauge in (metrics.waiting, metrics.running, metrics.oldest, metrics.expiry):
        gauge.clear()
    for queue, depth in depths.by_queue().items():
        metrics.waiting.labels(queue).set(depth.waiting)
        metrics.running.labels(queue).set(depth.running)
        metrics.oldest.labels(queue).set(waited_seconds(depth))
    for _, token in tokens.mirror.items():  # noqa: PERF102 - a mirror is no dict
        if not token.record.revoked_at:
            metrics.expiry.labels(token.record.id).set(token.record.expires_at.timestamp())
