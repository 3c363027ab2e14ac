"""``jetbridge router``: the composition root of the failover router."""

from __future__ import annotations

import argparse
import asyncio
import sys

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.connection import Bus, open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.health import HealthStore
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.policies import Policies, PolicyStore
from jetbridge.bus.rpc import RpcClient
from jetbridge.bus.service import run_until_stopped
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.starving import open_lanes
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.records import HealthRecord, WorkloadRecord
from jetbridge.router.lanes import LaneRounds, LaneView
from jetbridge.router.metrics import RouterMetrics
from jetbridge.router.moving import Mover
from jetbridge.router.requeue import through_bridge
from jetbridge.router.rounds import Rounds
from jetbridge.router.settings import RouterSettings
from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.status import Pulse, StatusPortError, watched
from jetbridge.telemetry.tracing import TracingConfigurationError, traced


def main(argv: list[str]) -> int:
    """Run one router until SIGTERM and return the exit code. Several may run; each step is taken once."""
    argparse.ArgumentParser(
        prog="jetbridge router", description="Takes work back from lost agents and has it run elsewhere."
    ).parse_args(argv)
    configure_logging("router")
    try:
        with traced("router"):
            asyncio.run(_run(RouterSettings(), BusSettings()))
    except (BusError, StatusPortError, TracingConfigurationError) as exc:
        print(f"jetbridge router: {exc}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    return 0


async def _run(settings: RouterSettings, bus_settings: BusSettings) -> None:
    async with open_bus(bus_settings, "jetbridge-router") as bus:
        store, metrics = await WorkloadStore.open(bus), RouterMetrics()
        workloads = BucketMirror(bus, store.bucket)
        health = BucketMirror(bus, (await HealthStore.open(bus)).bucket)
        requeue = through_bridge(await RpcClient.open(bus), settings.bridge_timeout_seconds)
        lanes = await _lane_rounds(bus, store, workloads, health, metrics, settings)
        interval, agents = settings.round_interval_seconds, lanes.view.agents
        rounds = Rounds(workloads, health, store, requeue, metrics, interval, agents)
        pulse = Pulse()
        with watched(metrics.metrics, settings.metrics_port, pulse.is_well):
            await run_until_stopped(
                pulse=pulse.run(),
                workloads=workloads.run(),
                health=health.run(),
                agents=lanes.view.agents.run(),
                orders=lanes.view.orders.run(),
                lanes=lanes.view.lanes.run(),
                policies=lanes.view.policies.mirror.run(),
                rounds=rounds.run(),
                lane_rounds=lanes.run(),
            )


async def _lane_rounds(  # noqa: PLR0913, PLR0917 - what the two kinds of rounds share
    bus: Bus,
    store: WorkloadStore,
    workloads: BucketMirror[WorkloadRecord],
    health: BucketMirror[HealthRecord],
    metrics: RouterMetrics,
    settings: RouterSettings,
) -> LaneRounds:
    bucket = await open_lanes(bus)
    view = LaneView(
        workloads=workloads,
        agents=BucketMirror(bus, (await AgentStore.open(bus)).bucket),
        health=health,
        orders=BucketMirror(bus, (await OrderStore.open(bus)).bucket),
        lanes=BucketMirror(bus, bucket, own_writes=True),
        policies=Policies(bus, await PolicyStore.open(bus)),
    )
    mover = Mover(bus, store, metrics)
    return LaneRounds(view, bucket, store, mover, metrics, settings.round_interval_seconds)
