"""Metrics that are looked up when somebody asks: what is true of the plane, and not of this process."""

from __future__ import annotations

import asyncio
from typing import Any

from jetbridge.gateway.depth import waited_seconds
from jetbridge.gateway.gateway import Gateway
from jetbridge.telemetry.otlp_metrics import Read

_LOOP_SECONDS = 10.0
"""A loop that does not get round to a look in this time has other worries than metrics."""


def refresh(gateway: Gateway) -> None:
    """Set the gauges of queues and tokens; what is gone is shown no more."""
    metrics = gateway.metrics
    for gauge in (metrics.waiting, metrics.running, metrics.oldest, metrics.expiry):
        gauge.clear()
    for queue, depth in gateway.depths.by_queue().items():
        metrics.waiting.labels(queue).set(depth.waiting)
        metrics.running.labels(queue).set(depth.running)
        metrics.oldest.labels(queue).set(waited_seconds(depth))
    for _, token in gateway.gatekeeper.tokens.mirror.items():  # noqa: PERF102 - a mirror is no dict
        if not token.record.revoked_at:
            metrics.expiry.labels(token.record.id).set(token.record.expires_at.timestamp())


def reader(gateway: Gateway) -> Read:
    """Return what reads all metrics from another thread; what is looked up belongs to this event loop."""
    loop = asyncio.get_running_loop()

    async def look() -> list[Any]:
        refresh(gateway)
        return list(gateway.metrics.all.registry.collect())

    return lambda: asyncio.run_coroutine_threadsafe(look(), loop).result(_LOOP_SECONDS)
