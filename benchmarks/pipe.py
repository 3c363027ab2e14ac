"""
The gateway alone: real NATS, Redis and TLS, agents that only speak the protocol and run nothing.

Two figures: the memory of a gateway that holds idle polls, and how many workloads it hands over (submitted →
polled → accepted → reported), by the clock and per second of its own CPU time. The second is what counts
on a machine whose cores are shared with NATS, the executor's side and the agents. Prints one JSON
document; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import ssl
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop

from jetbridge.bus.apply import apply
from jetbridge.bus.connection import Bus, open_bus
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tokens import TokenStore
from jetbridge.bus.workloads import NewWorkload, WorkloadStore
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.devstack.plane import Plane, add_gateways, write_secret
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import listens
from jetbridge.devstack.processes import ManagedProcess, Supervisor
from jetbridge.devstack.servers import nats, redis
from jetbridge.devstack.tls import Certificates, make_certificates

HOST = "127.0.0.1"
MIB = 1024 * 1024
SPEC = json.dumps({"type": "ExecuteTask", "padding": "x" * 2000}).encode()
"""About the size of a real ExecuteTask workload."""


@dataclass(frozen=True)
class Running:
    """What is under test, and how to reach it."""

    url: str
    gateway: ManagedProcess
    bus: Bus
    token: str
    tls: ssl.SSLContext


@dataclass
class Agent:
    """An agent that accepts what it is offered and reports its end at once."""

    session: aiohttp.ClientSession
    url: str
    queue: str
    slots: int = 16
    name: str = field(default_factory=lambda: f"bench-{secrets.token_hex(5)}")
    credential: str = ""

    async def register(self, token: str) -> None:
        body = {
            "name": self.name,
            "instance": secrets.token_hex(16),
            "role": "worker",
            "queues": [self.queue],
            "slots": self.slots,
        }
        self.credential = (await self._post("/v1/agents", body, token))["credential"]

    async def poll(self, free_slots: int, wait_seconds: float) -> list[str]:
        body = {"free_slots": free_slots, "wait_seconds": wait_seconds}
        answer = await self._post(f"/v1/agents/{self.name}/poll", body, self.credential)
        return [offer["lease"] for offer in answer.get("offers", [])]

    async def run(self, lease: str) -> None:
        await self._post(f"/v1/leases/{lease}/accept", {}, self.credential)
        body = {"outcome": "succeeded", "exit_code": 0}
        await self._post(f"/v1/leases/{lease}/report", body, self.credential)

    async def _post(self, path: str, body: dict[str, Any], bearer: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {bearer}"}
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
            content: dict[str, Any] = await answer.json()
            return content


async def hold_idle_polls(running: Running, polls: int) -> dict[str, Any]:
    """Return the gateway's memory before, and while it holds ``polls`` polls."""
    before = _memory(running.gateway)
    async with _session(running) as session:
        agents = [Agent(session, running.url, f"idle-{number % 20}") for number in range(polls)]
        for batch in range(0, polls, 50):
            await asyncio.gather(*(agent.register(running.token) for agent in agents[batch : batch + 50]))
        say(f"{polls} agents are registered")
        held = [asyncio.create_task(agent.poll(4, 60)) for agent in agents]
        await _until(session, f"{running.url}/metrics", f"jetbridge_gateway_held_polls {float(polls)}")
        during = _memory(running.gateway)
        cpu = _cpu_seconds(running.gateway)
        started = time.monotonic()
        await asyncio.sleep(10)
        share = (_cpu_seconds(running.gateway) - cpu) / (time.monotonic() - started)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
    return {
        "polls": polls,
        "rss_before_mib": round(before / MIB, 1),
        "rss_mib": round(during / MIB, 1),
        "kib_per_poll": round((during - before) / polls / 1024, 1),
        "cpu_share": round(share, 4),
    }


async def hand_over(running: Running, workloads: int, agents: int) -> dict[str, Any]:
    """Return how fast ``workloads`` go through the gateway to ``agents`` agents."""
    queue = f"pipe-{secrets.token_hex(4)}"
    store = await WorkloadStore.open(running.bus)
    async with _session(running) as session:
        workers = [Agent(session, running.url, queue) for _ in range(agents)]
        await asyncio.gather(*(worker.register(running.token) for worker in workers))
        await _pass(store, workers, queue, workloads // 5)  # opens connections; not counted
        cpu, started = _cpu_seconds(running.gateway), time.monotonic()
        submitted = await _pass(store, workers, queue, workloads)
        seconds, used = time.monotonic() - started, _cpu_seconds(running.gateway) - cpu
    return {
        "workloads": workloads,
        "agents": agents,
        "seconds": round(seconds, 2),
        "submitted_after_seconds": round(submitted, 2),
        "per_second": round(workloads / seconds, 1),
        "gateway_cpu_seconds": round(used, 2),
        "per_gateway_cpu_second": round(workloads / used, 1),
        "gateway_cpu_share": round(used / seconds, 2),
    }


async def _pass(store: WorkloadStore, workers: list[Agent], queue: str, workloads: int) -> float:
    """Put ``workloads`` through; returns after how many seconds all were submitted."""
    started, done = time.monotonic(), set[str]()
    working = [asyncio.create_task(_work(worker, done, workloads)) for worker in workers]
    await _submit(store, queue, workloads)
    submitted = time.monotonic() - started
    await asyncio.gather(*working)
    if len({lease.partition(".")[0] for lease in done}) != workloads:
        raise RuntimeError(f"{len(done)} leases for {workloads} workloads")
    return submitted


async def _submit(store: WorkloadStore, queue: str, workloads: int) -> None:
    limit = asyncio.Semaphore(32)

    async def submit() -> None:
        async with limit:
            await store.submit(
                NewWorkload(
                    workload_id=str(uuid.uuid4()),
                    kind=WorkloadKind.TASK,
                    queue=queue,
                    priority_weight=1,
                    coordinates=TaskCoordinates(dag_id="pipe", run_id="bench", task_id="t"),
                    spec=SPEC,
                )
            )

    await asyncio.gather(*(submit() for _ in range(workloads)))


async def _work(agent: Agent, done: set[str], workloads: int) -> None:
    free = agent.slots
    running: set[asyncio.Task[None]] = set()

    async def run(lease: str) -> None:
        nonlocal free
        try:
            await agent.run(lease)
            done.add(lease)
        finally:
            free += 1

    while len(done) < workloads:
        if free == 0:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for lease in await agent.poll(free, 0.5):
            free -= 1
            task = asyncio.create_task(run(lease))
            running.add(task)
            task.add_done_callback(running.discard)
    await asyncio.gather(*running)


async def _until(session: aiohttp.ClientSession, url: str, text: str) -> None:
    async with asyncio.timeout(60):
        while True:
            async with session.get(url) as answer:
                if text in await answer.text():
                    return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _session(running: Running) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, ssl=running.tls)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=90)) as session:
        yield session


def _memory(process: ManagedProcess) -> int:
    resident: int = psutil.Process(process.pid).memory_info().rss
    return resident


def _cpu_seconds(process: ManagedProcess) -> float:
    times = psutil.Process(process.pid).cpu_times()
    seconds: float = times.user + times.system
    return seconds


@asynccontextmanager
async def gateway(supervisor: Supervisor) -> AsyncIterator[Running]:
    """Start servers and one gateway process."""
    directory = supervisor.directory
    certificates = make_certificates(directory / "tls", HOST)
    secret = directory / "jwt_secret"
    write_secret(secret, secrets.token_urlsafe(64))
    plane = Plane(
        nats=nats.start(supervisor),
        redis=redis.start(supervisor),
        airflow_url=f"http://{HOST}:9",  # nothing here calls Airflow
        jwt_secret_file=secret,
    )
    async with open_bus(BusSettings(url=plane.nats.url), "jetbridge-bench") as bus:
        await apply(bus, 1)
        token, _ = await (await TokenStore.open(bus)).create("bench")
        process, url = _start(supervisor, plane, certificates)
        tls = ssl.create_default_context(cafile=certificates.ca)
        yield Running(url, process, bus, str(token), tls)


def _start(supervisor: Supervisor, plane: Plane, certificates: Certificates) -> tuple[ManagedProcess, str]:
    port = free_port()
    environment = plane.gateway_environment(HOST, port, certificates) | {
        "JETBRIDGE_GATEWAY_REGISTRATIONS_PER_MINUTE": "1000000"  # all agents are at one address here
    }
    environment["JETBRIDGE_LOG_LEVEL"] = os.environ.get("JETBRIDGE_LOG_LEVEL", "INFO")
    (process,) = add_gateways(supervisor, environment, 1)
    process.start()
    process.wait_ready(listens(process, port))
    return process, f"https://{HOST}:{port}"


async def measure(polls: int, workloads: int, agents: int) -> dict[str, Any]:
    """Run both measurements, each on a gateway of its own."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="jetbridge-pipe-") as directory:
        with Supervisor(Path(directory) / "idle") as supervisor:
            async with gateway(supervisor) as running:
                result["idle"] = await hold_idle_polls(running, polls)
        say(f"idle: {result['idle']}")
        with Supervisor(Path(directory) / "pipe") as supervisor:
            async with gateway(supervisor) as running:
                result["hand_over"] = await hand_over(running, workloads, agents)
        say(f"hand over: {result['hand_over']}")
    return result | {"cores": os.cpu_count(), "load_average": os.getloadavg()}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the gateway alone; prints JSON.")
    parser.add_argument("--polls", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=3000)
    parser.add_argument("--agents", type=int, default=20)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure(arguments.polls, arguments.workloads, arguments.agents))
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
