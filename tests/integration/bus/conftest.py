"""A bus with the topology applied, on the session's NATS server."""

import asyncio
import uuid

import pytest

from jetbridge.bus.apply import apply
from jetbridge.bus.connection import open_bus
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import NewWorkload, WorkloadStore
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import nats


@pytest.fixture
def own_nats_url(run_directory):
    """A server of this test's own, with nothing applied."""
    with Supervisor(run_directory) as supervisor:
        server = nats.start(supervisor)
        if not server.restartable:
            pytest.skip("needs an empty NATS server; the environment names one that is in use")
        yield server.url


@pytest.fixture
async def bus(nats_url):
    async with open_bus(BusSettings(url=nats_url), "tests") as bus:
        await apply(bus, 1)
        yield bus


@pytest.fixture
async def store(bus):
    return await WorkloadStore.open(bus)


@pytest.fixture
def queue():
    """A lane of this test's own: the server is shared by the session."""
    return f"q-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def workload(queue):
    def make(priority_weight: int = 1, workload_id: str | None = None) -> NewWorkload:
        return NewWorkload(
            workload_id=workload_id or str(uuid.uuid4()),
            kind=WorkloadKind.TASK,
            queue=queue,
            priority_weight=priority_weight,
            coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
            spec=b'{"type":"ExecuteTask"}',
        )

    return make


@pytest.fixture
def eventually():
    async def wait(condition, seconds: float = 15.0):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)

    return wait
