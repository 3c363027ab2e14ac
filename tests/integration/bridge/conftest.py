"""A bus with the topology applied, and the bridge's request/reply on it with operations of the test's own."""

import uuid
from contextlib import asynccontextmanager

import pytest

from jetbridge.bus.apply import apply
from jetbridge.bus.broker import open_broker
from jetbridge.bus.connection import open_bus
from jetbridge.bus.rpc import ClaimCheck, RpcClient
from jetbridge.bus.settings import BusSettings
from jetbridge.scheduler.bridge.metrics import BridgeMetrics
from jetbridge.scheduler.bridge.rpc import Dispatcher
from jetbridge.scheduler.bridge.subscribers import drain, publisher, subscribe
from jetbridge.telemetry.metrics import Metrics


@pytest.fixture
async def bus(nats_url):
    async with open_bus(BusSettings(url=nats_url), "tests") as bus:
        await apply(bus, 1)
        yield bus


@pytest.fixture
async def client(bus):
    return await RpcClient.open(bus)


@pytest.fixture
def subject():
    """A subject of this test's own: the server is shared by the session."""
    return f"rpc.test.{uuid.uuid4().hex}"


@pytest.fixture
def serving(nats_url, bus):  # noqa: ARG001 - the topology must be there
    @asynccontextmanager
    async def serve(*operations, threads=4, max_waiting=64):
        metrics = Metrics("bridge", process_metrics=False)
        async with open_broker(BusSettings(url=nats_url), "bridge-under-test") as own:
            dispatcher = Dispatcher(
                await ClaimCheck.open(own), BridgeMetrics(metrics), publisher(own), threads
            )
            subscribe(own, dispatcher, operations, max_waiting)
            await own.broker.start()
            # nats-py's flush overtakes commands that are still in its buffer; the second comes after them.
            await own.client.flush()
            await own.client.flush()
            yield metrics
            await drain(own, dispatcher, 10)

    return serve
