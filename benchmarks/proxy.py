"""
What the gateway adds to a call of Airflow's Execution API: the same calls with and without it, in turn.

An upstream that answers at once stands for Airflow, in a process of its own: what is measured is the way.
Calls come at a fixed rate, whether or not earlier ones were answered. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from one_gateway import (
    HOST,
    Agent,
    Running,
    cpu_seconds,
    gateway,
    new_workload,
    percentiles_ms,
    say,
    session_to,
)

from jetbridge.bus.workloads import WorkloadStore
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import listens
from jetbridge.devstack.processes import Command, Supervisor

BODY = {"hostname": "bench", "pid": 1}
ROUND_SECONDS = 5.0


async def upstream(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer everything as Airflow answers a heartbeat."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True)
class Way:
    """One task's way to the Execution API, over a connection of its own."""

    session: aiohttp.ClientSession
    url: str
    token: str

    async def call(self) -> float:
        """Send a heartbeat; returns seconds."""
        begun = time.monotonic()
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.put(self.url, json=BODY, headers=headers) as answer:
            if answer.status != 204:
                raise RuntimeError(f"{self.url}: {answer.status} {await answer.text()}")
        return time.monotonic() - begun


async def at_a_rate(ways: Sequence[Way], per_second: float, seconds: float) -> list[float]:
    """Call at a fixed rate and return the latencies."""
    calls, begun = [], time.monotonic()
    for number in range(int(per_second * seconds)):
        await asyncio.sleep(begun + number / per_second - time.monotonic())
        calls.append(asyncio.create_task(ways[number % len(ways)].call()))
    return await asyncio.gather(*calls)


async def as_fast_as_possible(running: Running, ways: Sequence[Way], calls: int) -> dict[str, float]:
    """Return requests per second, by the clock and by the gateway's CPU time."""

    async def one(way: Way) -> None:
        for _ in range(calls // len(ways)):
            await way.call()

    cpu, begun = cpu_seconds(running.gateway), time.monotonic()
    await asyncio.gather(*map(one, ways))
    seconds, used = time.monotonic() - begun, cpu_seconds(running.gateway) - cpu
    return {"per_second": round(calls / seconds, 1), "per_gateway_cpu_second": round(calls / used, 1)}


async def leased_ways(stack: AsyncExitStack, running: Running, count: int) -> list[Way]:
    """Return ways through the gateway, each with a lease of its own."""
    agent = Agent(await stack.enter_async_context(session_to(running)), running.url, "proxy", slots=count)
    await agent.register(running.token)
    store = await WorkloadStore.open(running.bus)
    for _ in range(count):
        await store.submit(new_workload(agent.queue))
    ways: list[Way] = []
    while len(ways) < count:
        for lease in await agent.poll(count - len(ways), 5):
            ti_id = lease.partition(".")[0]
            url = f"{running.url}/execution/task-instances/{ti_id}/heartbeat"
            session = await stack.enter_async_context(session_to(running))
            ways.append(Way(session, url, await agent.accept(lease)))
    return ways


async def direct_ways(stack: AsyncExitStack, base: str, ways: Sequence[Way]) -> list[Way]:
    """Return the same calls without the gateway."""
    sessions = [await stack.enter_async_context(aiohttp.ClientSession()) for _ in ways]
    paths = [way.url.partition("/execution/")[2] for way in ways]
    return [
        Way(session, f"{base}/execution/{path}", secrets.token_hex(8))
        for session, path in zip(sessions, paths, strict=True)
    ]


async def measure(per_second: float, tasks: int, rounds: int) -> dict[str, Any]:
    """Return latencies at a rate, and how many calls a gateway takes at most."""
    through: list[float] = []
    direct: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="jetbridge-proxy-") as directory,
        Supervisor(Path(directory)) as up,
    ):
        base = _start_upstream(up)
        async with (
            gateway(up, base, {"JETBRIDGE_LOG_LEVEL": "WARNING"}) as running,
            AsyncExitStack() as stack,
        ):
            ways = await leased_ways(stack, running, tasks)
            beside = await direct_ways(stack, base, ways)
            await at_a_rate(ways + beside, per_second, 2)  # opens connections; not counted
            for _ in range(rounds):
                direct += await at_a_rate(beside, per_second, ROUND_SECONDS)
                through += await at_a_rate(ways, per_second, ROUND_SECONDS)
            most = await as_fast_as_possible(running, ways, 4000)
    figures = {"direct_ms": percentiles_ms(direct), "through_ms": percentiles_ms(through)}
    added = {
        share: round(figures["through_ms"][share] - value, 2) for share, value in figures["direct_ms"].items()
    }
    return {"per_second": per_second, "tasks": tasks, **figures, "added_ms": added, "at_most": most}


def _start_upstream(supervisor: Supervisor) -> str:
    port = free_port()
    options = [
        "--host",
        HOST,
        "--port",
        str(port),
        "--log-level",
        "warning",
        "--app-dir",
        str(Path(__file__).parent),
    ]
    command = Command(
        argv=[sys.executable, "-m", "uvicorn", "proxy:upstream", *options], env=dict(os.environ)
    )
    process = supervisor.start("upstream", command)
    process.wait_ready(listens(process, port))
    return f"http://{HOST}:{port}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the gateway adds to a call; prints JSON.")
    parser.add_argument("--per-second", type=float, default=200)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure(arguments.per_second, arguments.tasks, arguments.rounds))
    say(json.dumps(result["added_ms"]))
    print(json.dumps(result | {"cores": os.cpu_count(), "load": os.getloadavg()}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
