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
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from one_gateway import MIB, Agent, Running, cpu_seconds, gateway, memory, say, session_to, submit_many, until

from jetbridge.bus.workloads import WorkloadStore
from jetbridge.devstack.processes import Supervisor


async def hold_idle_polls(running: Running, polls: int) -> dict[str, Any]:
    """Return the gateway's memory before, and while it holds ``polls`` polls."""
    before = memory(running.gateway)
    async with session_to(running) as session:
        agents = [Agent(session, running.url, f"idle-{number % 20}") for number in range(polls)]
        for batch in range(0, polls, 50):
            await asyncio.gather(*(agent.register(running.token) for agent in agents[batch : batch + 50]))
        say(f"{polls} agents are registered")
        held = [asyncio.create_task(agent.poll(4, 60)) for agent in agents]
        await until(session, f"{running.url}/metrics", f"jetbridge_gateway_held_polls {float(polls)}")
        during = memory(running.gateway)
        cpu = cpu_seconds(running.gateway)
        started = time.monotonic()
        await asyncio.sleep(10)
        share = (cpu_seconds(running.gateway) - cpu) / (time.monotonic() - started)
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
    async with session_to(running) as session:
        workers = [Agent(session, running.url, queue) for _ in range(agents)]
        await asyncio.gather(*(worker.register(running.token) for worker in workers))
        await _pass(store, workers, queue, workloads // 5)  # opens connections; not counted
        cpu, started = cpu_seconds(running.gateway), time.monotonic()
        submitted = await _pass(store, workers, queue, workloads)
        seconds, used = time.monotonic() - started, cpu_seconds(running.gateway) - cpu
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
    await submit_many(store, queue, workloads)
    submitted = time.monotonic() - started
    await asyncio.gather(*working)
    if len({lease.partition(".")[0] for lease in done}) != workloads:
        raise RuntimeError(f"{len(done)} leases for {workloads} workloads")
    return submitted


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
