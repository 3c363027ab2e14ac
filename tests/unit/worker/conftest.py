from __future__ import annotations

import asyncio

import pytest

from jetbridge.agent.gateway_client import GatewayClient
from jetbridge.agent.link import Backoff, Link
from jetbridge.agent.runtime import StopLimits, run_agent
from jetbridge.agent.session import Session, new_instance
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.stop import StopRequests
from jetbridge.agent.testing import FakeGateway
from jetbridge.contracts.api import RegisterRequest
from jetbridge.contracts.messages import Outcome
from jetbridge.worker.delivery import Outboxes
from jetbridge.worker.frames import Exited
from jetbridge.worker.worker import Worker


class FakeProcesses:
    """Stands for the fork server: what was started, what was stopped, and ends when the test says so."""

    def __init__(self):
        self.up = asyncio.Event()
        self.up.set()
        self.orders = {}
        self.stopped = []
        self.handed_over = []
        self.held_until = []
        self.ends = {}
        self.good_seconds = {}
        self.most_at_once = 0
        self.closed = False
        self.all_end = True
        self.failure = None
        self.broken = asyncio.Event()
        self.ignore_stop = False

    @property
    def ready(self):
        return self.up.is_set()

    async def keep(self, changed):
        self.changed = changed
        await self.broken.wait()
        raise self.failure

    async def wait_ready(self):
        await self.up.wait()

    async def hold(self, hold):
        self.held_until.append(hold.until)

    async def run(self, order, hold, good_seconds=0.0):
        assert hold.until > 0
        self.good_seconds[order.lease] = good_seconds
        self.orders[order.lease] = order
        ended = self.ends.setdefault(order.lease, asyncio.get_running_loop().create_future())
        self.most_at_once = max(self.most_at_once, sum(not end.done() for end in self.ends.values()))
        return await ended

    async def stop(self, lease, _grace_seconds):
        self.stopped.append(lease)
        if not self.ignore_stop and lease in self.ends:
            self.end(lease, exit_code=-15)

    async def hand_over(self, lease):
        self.handed_over.append(lease)
        if lease in self.ends:
            self.end(lease, Outcome.ABANDONED, -9, "given up")

    async def close(self):
        self.closed = True
        return self.all_end

    def end(self, lease, outcome=Outcome.SUCCEEDED, exit_code=0, reason=""):
        if not self.ends[lease].done():
            self.ends[lease].set_result(
                Exited(lease=lease, outcome=outcome, exit_code=exit_code, reason=reason)
            )

    def running(self):
        return [lease for lease, end in self.ends.items() if not end.done()]


class RunningWorker:
    """A worker with everything around it, run as ``main`` runs it."""

    def __init__(self, gateway, client, token_file, slots=2):
        self.gateway = gateway
        self.processes = FakeProcesses()
        self.stop = StopRequests()
        self.limits = StopLimits(drain_seconds=3600.0, terminate_seconds=30.0, goodbye_seconds=1.0)
        tasks = SideTasks()
        identity = RegisterRequest(name="a1", instance=new_instance(), role="worker", slots=slots)
        session = Session(client, Link(lambda: Backoff(0.001, 0.01)), identity, token_file)
        self.outboxes = Outboxes(session, token_file.parent / "outbox")
        self.worker = Worker(
            session, self.processes, self.outboxes, tasks, slots=slots, stop_grace_seconds=0.0
        )
        self._parts = session, self.worker, tasks, self.stop

    def start(self):
        self.task = asyncio.create_task(run_agent(*self._parts, self.limits))
        return self

    async def started(self, lease):
        await self.gateway.until(lambda: lease in self.processes.orders)

    async def exit_code(self):
        return await asyncio.wait_for(self.task, 30)


@pytest.fixture
def gateway():
    return FakeGateway()


@pytest.fixture
def token_file(tmp_path, gateway):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{gateway.token}\n")
    return path


@pytest.fixture
async def idle_worker(gateway, token_file):
    """A worker that was not started yet."""
    async with GatewayClient("https://gateway.test", http=gateway.http()) as client:
        running = RunningWorker(gateway, client, token_file)
        yield running
        running.stop.request()
        running.stop.request()
        gateway.down = False
        await asyncio.wait({running.task}, timeout=30)
        assert running.task.done()


@pytest.fixture
async def worker(idle_worker):
    """A worker that runs and is known to the gateway."""
    idle_worker.start()
    gateway = idle_worker.gateway
    await gateway.until(lambda: gateway.called("poll") and idle_worker.processes.held_until)
    return idle_worker
