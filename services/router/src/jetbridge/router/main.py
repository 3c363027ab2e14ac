"""``jetbridge router``: the composition root of the failover router."""

from __future__ import annotations

import argparse
import asyncio
import sys

from prometheus_client import start_http_server

from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.health import HealthStore
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.rpc import RpcClient
from jetbridge.bus.service import run_until_stopped
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.router.metrics import RouterMetrics
from jetbridge.router.requeue import through_bridge
from jetbridge.router.rounds import Rounds
from jetbridge.router.settings import RouterSettings
from jetbridge.telemetry.logs import configure_logging


def main(argv: list[str]) -> int:
    """Run one router until SIGTERM and return the exit code. Several may run; each step is taken once."""
    argparse.ArgumentParser(
        prog="jetbridge router", description="Takes work back from lost agents and has it run elsewhere."
    ).parse_args(argv)
    configure_logging("router")
    try:
        asyncio.run(_run(RouterSettings(), BusSettings()))
    except BusError as exc:
        print(f"jetbridge router: {exc}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    return 0


async def _run(settings: RouterSettings, bus_settings: BusSettings) -> None:
    async with open_bus(bus_settings, "jetbridge-router") as bus:
        store, metrics = await WorkloadStore.open(bus), RouterMetrics()
        workloads = BucketMirror(bus, store.bucket)
        health = BucketMirror(bus, (await HealthStore.open(bus)).bucket)
        requeue = through_bridge(await RpcClient.open(bus), settings.bridge_timeout_seconds)
        rounds = Rounds(workloads, health, store, requeue, metrics, settings.round_interval_seconds)
        if settings.metrics_port:
            start_http_server(settings.metrics_port, registry=metrics.metrics.registry)
        await run_until_stopped(workloads=workloads.run(), health=health.run(), rounds=rounds.run())
