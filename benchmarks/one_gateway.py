"""One gateway process with real NATS, Redis and TLS, and agents that speak the protocol and run nothing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import ssl
import statistics
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil

from jetbridge.agent.connections import IDLE_CONNECTION_SECONDS
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
NOWHERE = f"http://{HOST}:9"
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


class AnswerError(Exception):
    """The gateway did not answer with 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


@dataclass
class Agent:
    """An agent that accepts what it is offered and reports its end at once."""

    session: aiohttp.ClientSession
    url: str
    queue: str
    slots: int = 16
    name: str = field(default_factory=lambda: f"bench-{secrets.token_hex(5)}")
    credential: str = ""

    async def register(self, token: str) -> dict[str, Any]:
        body = {
            "name": self.name,
            "instance": secrets.token_hex(16),
            "role": "worker",
            "queues": [self.queue],
            "slots": self.slots,
        }
        answer = await self._post("/v1/agents", body, token)
        self.credential = answer["credential"]
        return answer

    async def heartbeat(self, free_slots: int) -> None:
        await self._post(f"/v1/agents/{self.name}/heartbeat", {"free_slots": free_slots}, self.credential)

    async def poll(self, free_slots: int, wait_seconds: float) -> list[str]:
        body = {"free_slots": free_slots, "wait_seconds": wait_seconds}
        answer = await self._post(f"/v1/agents/{self.name}/poll", body, self.credential)
        return [offer["lease"] for offer in answer.get("offers", [])]

    async def accept(self, lease: str) -> str:
        """Return the token of the lease."""
        token: str = (await self._post(f"/v1/leases/{lease}/accept", {}, self.credential))["token"]
        return token

    async def run(self, lease: str) -> None:
        await self.accept(lease)
        body = {"outcome": "succeeded", "exit_code": 0}
        await self._post(f"/v1/leases/{lease}/report", body, self.credential)

    async def _post(self, path: str, body: dict[str, Any], bearer: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {bearer}"}
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            if answer.status != 200:
                raise AnswerError(answer.status, f"{path}: {await answer.text()}")
            content: dict[str, Any] = await answer.json()
            return content


async def submit_many(store: WorkloadStore, queue: str, workloads: int) -> None:
    limit = asyncio.Semaphore(32)

    async def one() -> None:
        async with limit:
            await store.submit(new_workload(queue))

    await asyncio.gather(*(one() for _ in range(workloads)))


def new_workload(queue: str) -> NewWorkload:
    return NewWorkload(
        workload_id=str(uuid.uuid4()),
        kind=WorkloadKind.TASK,
        queue=queue,
        priority_weight=1,
        coordinates=TaskCoordinates(dag_id="pipe", run_id="bench", task_id="t"),
        spec=SPEC,
    )


async def until(session: aiohttp.ClientSession, url: str, text: str, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while True:
            async with session.get(url) as answer:
                if text in await answer.text():
                    return
            await asyncio.sleep(0.1)


async def held_polls(session: aiohttp.ClientSession, url: str) -> float:
    """Return how many polls a gateway holds now."""
    async with session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("jetbridge_gateway_held_polls "))


@asynccontextmanager
async def session_to(running: Running) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, ssl=running.tls, keepalive_timeout=IDLE_CONNECTION_SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=90)) as session:
        yield session


def memory(process: ManagedProcess) -> int:
    resident: int = psutil.Process(process.pid).memory_info().rss
    return resident


def cpu_seconds(process: ManagedProcess) -> float:
    times = psutil.Process(process.pid).cpu_times()
    seconds: float = times.user + times.system
    return seconds


@asynccontextmanager
async def gateway(
    supervisor: Supervisor, airflow_url: str = NOWHERE, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Start servers and one gateway process, in front of an Airflow at ``airflow_url``."""
    directory = supervisor.directory
    certificates = make_certificates(directory / "tls", HOST)
    secret = directory / "jwt_secret"
    write_secret(secret, secrets.token_urlsafe(64))
    plane = Plane(
        nats=nats.start(supervisor),
        redis=redis.start(supervisor),
        airflow_url=airflow_url,
        jwt_secret_file=secret,
    )
    async with open_bus(BusSettings(url=plane.nats.url), "jetbridge-bench") as bus:
        await apply(bus, 1)
        token, _ = await (await TokenStore.open(bus)).create("bench")
        process, url = _start(supervisor, plane, certificates, settings or {})
        tls = ssl.create_default_context(cafile=certificates.ca)
        yield Running(url, process, bus, str(token), tls)


def _start(
    supervisor: Supervisor, plane: Plane, certificates: Certificates, settings: Mapping[str, str]
) -> tuple[ManagedProcess, str]:
    port = free_port()
    environment = plane.gateway_environment(HOST, port, certificates) | {
        "JETBRIDGE_GATEWAY_REGISTRATIONS_PER_MINUTE": "1000000"  # all agents are at one address here
    }
    environment |= {"JETBRIDGE_LOG_LEVEL": os.environ.get("JETBRIDGE_LOG_LEVEL", "INFO"), **settings}
    (process,) = add_gateways(supervisor, environment, 1)
    process.start()
    process.wait_ready(listens(process, port))
    return process, f"https://{HOST}:{port}"


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return the percentiles that people ask for."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{share}": round(1000 * cuts[share - 1], 2) for share in (50, 95, 99)}


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)
