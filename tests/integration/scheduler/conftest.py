"""An executor on a real NATS server of the test's own, and a gateway's and an agent's part to play."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from jetbridge.bus.apply import apply
from jetbridge.bus.connection import open_bus
from jetbridge.bus.lanes import Lane
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.envelope import open_envelope, read_body
from jetbridge.contracts.messages import Outcome, WorkloadSubmitted
from jetbridge.contracts.subjects import WORK_STREAM
from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import nats
from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.link import BusLink
from jetbridge.scheduler.settings import SchedulerSettings


class Plane:
    """The bus as the other side of the executor sees it."""

    def __init__(self, bus, store):
        self.bus = bus
        self.store = store

    async def pull(self, queue="default", limit=10):
        """Take what waits on a lane, without offering it."""
        async with Lane(self.bus, queue) as lane:
            return await asyncio.wait_for(lane.take(limit), 30)

    async def lease(self, queue="default", agent="worker-1", limit=1):
        """Let an agent accept what waits on a lane; return the leases."""
        leases = []
        for message in await self.pull(queue, limit):
            body = read_body(open_envelope(message.data), WorkloadSubmitted)
            current = await self.store.get(body.workload_id)
            lease = await self.store.offer(current, agent, message.reply)
            await self.store.accept(lease, agent)
            leases.append(lease)
        return leases

    async def finish(self, lease, agent="worker-1", outcome=Outcome.SUCCEEDED, reason=""):
        await self.store.finish(lease, agent, outcome, 0, reason)

    async def waiting(self):
        """Return how many messages wait on all lanes."""
        await self.bus.client.flush()
        return (await self.bus.js.stream_info(WORK_STREAM)).state.messages


@pytest.fixture
def server(run_directory):
    """A server of this test's own: it may be stopped, and its buckets start empty."""
    with Supervisor(run_directory) as supervisor:
        server = nats.start(supervisor)
        if not server.restartable:
            pytest.skip("needs a NATS server of its own; the environment names one that is in use")
        yield server


@asynccontextmanager
async def connect(url):
    async with open_bus(BusSettings(url=url), "tests") as bus:
        await apply(bus, 1)
        yield Plane(bus, await WorkloadStore.open(bus))


@pytest.fixture
def open_plane():
    """For tests whose server starts later than the executor."""
    return connect


@pytest.fixture
async def plane(server):
    async with connect(server.url) as plane:
        yield plane


@pytest.fixture
def make_executor(server):
    """Start executors; they end with the test."""
    links = []

    def make(parallelism=8, request_timeout_seconds=5.0, **values):
        bus = BusSettings(url=server.url, request_timeout_seconds=request_timeout_seconds)
        settings = SchedulerSettings(**{"tell_agent_after_seconds": 0, **values})
        links.append(BusLink(bus, settings))
        executor = RemoteExecutor(parallelism=parallelism, link=links[-1], settings=settings)
        executor.start()
        return executor

    yield make
    for link in links:
        link.stop(0)


@pytest.fixture
def executor(plane, make_executor):  # noqa: ARG001 - the topology must be there
    return make_executor()


async def heartbeats_until(executor, condition, seconds=30.0):
    """Run the scheduler's part until ``condition`` holds."""
    async with asyncio.timeout(seconds):
        while True:
            executor.heartbeat()
            if condition():
                return
            await asyncio.to_thread(executor._link.wait_for_news, 0.2)


@pytest.fixture
def until():
    return heartbeats_until
