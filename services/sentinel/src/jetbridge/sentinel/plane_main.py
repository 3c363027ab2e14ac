"""``jetbridge sentinel plane``: the composition root of the plane sentinel."""

from __future__ import annotations

import argparse
import asyncio
import sys

import redis.asyncio as redis

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.beats import open_beats
from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.health import HealthStore
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.service import run_until_stopped
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.sentinel.looking import Lookout
from jetbridge.sentinel.metrics import SentinelMetrics
from jetbridge.sentinel.plane import keep_watch
from jetbridge.sentinel.settings import SentinelSettings
from jetbridge.sentinel.silence import Limits, SilenceWatch
from jetbridge.sentinel.states import States
from jetbridge.sentinel.verdicts import Verdicts
from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.status import Pulse, StatusPortError, watched
from jetbridge.telemetry.tracing import TracingConfigurationError, traced

MAX_GAP_LOOKS = 5
"""Looks that may be late together before the pause itself counts as not having listened."""


def main(argv: list[str]) -> int:
    """Run one sentinel until SIGTERM and return the exit code."""
    argparse.ArgumentParser(
        prog="jetbridge sentinel plane", description="Turns silence of agents into verdicts."
    ).parse_args(argv)
    configure_logging("sentinel")
    try:
        with traced("sentinel"):
            return asyncio.run(_plane(SentinelSettings(), BusSettings()))
    except (BusError, StatusPortError, TracingConfigurationError) as exc:
        print(f"jetbridge sentinel: {exc}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 1


async def _plane(settings: SentinelSettings, bus_settings: BusSettings) -> int:
    async with open_bus(bus_settings, "jetbridge-sentinel") as bus:
        store = await HealthStore.open(bus)
        mirror = BucketMirror(bus, store.bucket)
        watch = SilenceWatch(_limits(settings), MAX_GAP_LOOKS * settings.look_interval_seconds)
        verdicts = Verdicts(watch, store, mirror, await WorkloadStore.open(bus), SentinelMetrics())
        client = redis.from_url(
            settings.redis_url.get_secret_value(), socket_timeout=settings.redis_timeout_seconds
        )
        beats = BucketMirror(bus, await open_beats(bus))
        lookout = Lookout(client, beats)
        orders = BucketMirror(bus, (await OrderStore.open(bus)).bucket)
        agents = BucketMirror(bus, (await AgentStore.open(bus)).bucket)
        states = States(mirror, orders, agents)
        pulse, metrics = Pulse(), verdicts.metrics.metrics
        async with client:
            with watched(metrics, settings.metrics_port, pulse.is_well):
                await run_until_stopped(
                    pulse=pulse.run(),
                    health=mirror.run(),
                    beats=beats.run(),
                    orders=orders.run(),
                    agents=agents.run(),
                    watch=keep_watch(bus, lookout, verdicts, states, settings.look_interval_seconds),
                )
    return 0


def _limits(settings: SentinelSettings) -> Limits:
    return Limits(
        heartbeat_seconds=settings.heartbeat_interval_seconds,
        lease_seconds=settings.lease_seconds,
        forget_seconds=settings.forget_seconds,
    )
