"""The bridge's composition root: connects, subscribes every operation, stops in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog

from jetbridge.bus.broker import open_broker
from jetbridge.bus.health import HealthStore
from jetbridge.bus.keys import TRIGGER_DATA_KEY, shared_key
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.nudges import nudge
from jetbridge.bus.rpc import ClaimCheck
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tasks import end_tasks
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.scheduler.bridge import assets
from jetbridge.scheduler.bridge.dag_processing import operations as dag_processing
from jetbridge.scheduler.bridge.dag_processing.results import ResultCache
from jetbridge.scheduler.bridge.database import Database
from jetbridge.scheduler.bridge.metrics import BridgeMetrics
from jetbridge.scheduler.bridge.rpc import Dispatcher, Nudge, Operation
from jetbridge.scheduler.bridge.settings import BridgeSettings
from jetbridge.scheduler.bridge.subscribers import drain, publisher, subscribe
from jetbridge.scheduler.bridge.triggers import operations as triggers
from jetbridge.scheduler.bridge.triggers.upkeep import Hearing, Losses, upkeep
from jetbridge.scheduler.bridge.waiting import stand_in
from jetbridge.scheduler.bridge.workloads import requeue_operation
from jetbridge.sealing.keyring import KEY_BYTES, Keyring, Sealer
from jetbridge.telemetry.metrics import Metrics
from jetbridge.telemetry.status import Pulse, watched

log = structlog.get_logger(__name__)


def operations(
    database: Database, hearing: Hearing, results: ResultCache, nudge: Nudge, keys: Sealer
) -> tuple[Operation[Any], ...]:
    """
    Return everything the bridge does; each area adds its own.

    ``nudge`` wakes the schedulers, ``keys`` seal what tasks carry over where their site did not.
    """
    return (
        *dag_processing.operations(database, results),
        *triggers.operations(database, hearing, nudge, keys),
        *assets.operations(database),
        requeue_operation(database, nudge),
    )


@asynccontextmanager
async def bridge(
    settings: BridgeSettings, bus_settings: BusSettings, metrics: Metrics
) -> AsyncIterator[None]:
    """Answer requests until the block ends; then take no more and finish those in flight."""
    database = Database(settings.threads)
    try:
        async with open_broker(bus_settings, "jetbridge-bridge") as bus:
            dispatcher = Dispatcher(
                await ClaimCheck.open(bus), BridgeMetrics(metrics), publisher(bus), settings.threads
            )
            hearing = Hearing(settings.triggerer_lost_after_seconds)
            results = ResultCache(settings.result_cache_bytes)
            keys = Keyring([(await shared_key(bus, TRIGGER_DATA_KEY))[:KEY_BYTES]])
            subscribe(
                bus,
                dispatcher,
                operations(database, hearing, results, partial(nudge, bus), keys),
                settings.max_waiting,
            )
            await bus.broker.start()
            log.info("bridge started", threads=settings.threads)
            health = BucketMirror(bus, (await HealthStore.open(bus)).bucket)
            workloads = BucketMirror(bus, (await WorkloadStore.open(bus)).bucket)
            unasked = {
                asyncio.create_task(workloads.run(), name="mirror of workloads"),
                asyncio.create_task(stand_in(database, workloads), name="heartbeats of tasks that wait"),
                asyncio.create_task(health.run(), name="mirror of health"),
                asyncio.create_task(upkeep(database, hearing, Losses(health)), name="upkeep of triggers"),
            }
            try:
                yield
            finally:
                await end_tasks(unasked)
                await drain(bus, dispatcher, settings.drain_seconds)
    finally:
        database.close()


async def run(settings: BridgeSettings, bus_settings: BusSettings, metrics: Metrics) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pulse = Pulse()
    beating = asyncio.create_task(pulse.run(), name="pulse")
    async with bridge(settings, bus_settings, metrics):
        with watched(metrics, settings.metrics_port, pulse.is_well):
            await stop.wait()
    beating.cancel()
    log.info("bridge stopped")
