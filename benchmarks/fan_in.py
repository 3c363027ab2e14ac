"""
Many agents on one gateway process: memory and CPU per agent, and how long work waits for an idle one.

Simulated agents that speak the real protocol, each with two TLS connections of its own as a real one: a held
poll and heartbeats. A workload is offered to one of them at a time; the offer's latency is the time from
before its submission until the poll is answered here, so it contains what this process, which plays all
agents on the same machine, takes. Prints one JSON document; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from one_gateway import (
    MIB,
    Agent,
    AnswerError,
    Running,
    cpu_seconds,
    gateway,
    held_polls,
    memory,
    new_workload,
    percentiles_ms,
    say,
    session_to,
)

from jetbridge.bus.workloads import WorkloadStore
from jetbridge.devstack.processes import Supervisor

HEARTBEATS_PER_SECOND = 200
"""What one gateway process is asked to take; with more agents each is told to send less often."""

DEFAULT_INTERVAL_SECONDS = 5.0
LEASE_INTERVALS = 24
"""As the defaults: 120 s to 5 s."""

CONNECTIONS_OF_AN_AGENT = 2
OTHER_FILES = 200
HELD_SHARE = 0.95
HELD_WITHIN_SECONDS = 300.0

REGISTERING_AT_ONCE = 50
MEASURE_SECONDS = 20.0


@dataclass
class Crowd:
    """Agents that poll and send heartbeats, and the workloads they were offered."""

    agents: list[Agent]
    interval_seconds: float
    offered: dict[str, asyncio.Future[float]]
    put_off: int = 0

    async def live(self, agent: Agent) -> None:
        await asyncio.gather(*(self._for_ever(agent, step) for step in (self._poll, self._beat)))

    async def _for_ever(self, agent: Agent, step: Callable[[Agent], Awaitable[None]]) -> None:
        # The spread a real fleet has.
        await asyncio.sleep(random.uniform(0, self.interval_seconds))  # noqa: S311 - no secret
        while True:
            try:
                await step(agent)
            except AnswerError as answer:
                if answer.status != 503:
                    raise
                self.put_off += 1  # real agents, too, ask again
                await asyncio.sleep(1)

    async def _poll(self, agent: Agent) -> None:
        for lease in await agent.poll(1, 30):
            waiting = self.offered.pop(lease.partition(".")[0], None)
            if waiting is not None:
                waiting.set_result(time.monotonic())
            await agent.run(lease)

    async def _beat(self, agent: Agent) -> None:
        await agent.heartbeat(1)
        await asyncio.sleep(self.interval_seconds)


async def measure(agents: int, queues: int, offers: int) -> dict[str, Any]:
    """Return what ``agents`` agents on ``queues`` queues cost one gateway."""
    interval = max(DEFAULT_INTERVAL_SECONDS, agents / HEARTBEATS_PER_SECOND)
    settings = {
        "JETBRIDGE_GATEWAY_HEARTBEAT_INTERVAL_SECONDS": str(interval),
        "JETBRIDGE_GATEWAY_LEASE_SECONDS": str(interval * LEASE_INTERVALS),
        "JETBRIDGE_LOG_LEVEL": "WARNING",
    }
    with (
        tempfile.TemporaryDirectory(prefix="jetbridge-fan-in-") as directory,
        Supervisor(Path(directory)) as up,
    ):
        async with gateway(up, settings=settings) as running, AsyncExitStack() as stack:
            before = memory(running.gateway)
            crowd = Crowd([], interval, {})
            await _gather(stack, running, crowd, agents, queues)
            async with asyncio.TaskGroup() as living:
                tasks = [living.create_task(crowd.live(agent)) for agent in crowd.agents]
                figures = await _figures(running, crowd, before, offers)
                for task in tasks:
                    task.cancel()
    return {"agents": agents, "queues": queues, "heartbeat_interval_seconds": interval, **figures}


async def _gather(stack: AsyncExitStack, running: Running, crowd: Crowd, agents: int, queues: int) -> None:
    for number in range(agents):
        session = await stack.enter_async_context(session_to(running))
        crowd.agents.append(Agent(session, running.url, f"fan-{number % queues}", slots=1))
    for begin in range(0, agents, REGISTERING_AT_ONCE):
        batch = crowd.agents[begin : begin + REGISTERING_AT_ONCE]
        await asyncio.gather(*(agent.register(running.token) for agent in batch))
        if begin % 1000 == 0:
            say(f"{begin + len(batch)} of {agents} agents are registered")


async def _figures(running: Running, crowd: Crowd, before: int, offers: int) -> dict[str, Any]:
    count = len(crowd.agents)
    async with session_to(running) as session:
        # Never quite all at the same moment: a poll ends after half a minute and the next one begins.
        async with asyncio.timeout(HELD_WITHIN_SECONDS):
            while await held_polls(session, running.url) < HELD_SHARE * count:  # noqa: ASYNC110 - its state
                await asyncio.sleep(0.5)
    await asyncio.sleep(crowd.interval_seconds)  # each has sent a heartbeat, so has its second connection
    cpu, started = cpu_seconds(running.gateway), time.monotonic()
    await asyncio.sleep(MEASURE_SECONDS)  # the thing that is measured
    share = (cpu_seconds(running.gateway) - cpu) / (time.monotonic() - started)
    during = memory(running.gateway)
    latencies = await _offer(running, crowd, offers)
    return {
        "rss_mib": round(during / MIB, 1),
        "kib_per_agent": round((during - before) / count / 1024, 1),
        "cpu_percent": round(100 * share, 1),
        "cpu_percent_per_1000_agents": round(100_000 * share / count, 2),
        "offer_ms": percentiles_ms(latencies),
        "requests_put_off": crowd.put_off,
    }


async def _offer(running: Running, crowd: Crowd, offers: int) -> Sequence[float]:
    """Submit workloads one at a time and return after how many seconds each was offered."""
    store = await WorkloadStore.open(running.bus)
    latencies = []
    for _ in range(offers):
        workload = new_workload(random.choice(crowd.agents).queue)  # noqa: S311 - no secret
        waiting = crowd.offered[workload.workload_id] = asyncio.get_running_loop().create_future()
        begun = time.monotonic()
        await store.submit(workload)
        async with asyncio.timeout(60):
            latencies.append(await waiting - begun)
    return latencies


def most_agents() -> int:
    """Return how many agents' connections this machine allows a process; the gateway inherits the limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard - OTHER_FILES) // CONNECTIONS_OF_AN_AGENT


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure one gateway with many agents; prints JSON.")
    parser.add_argument("--agents", default="100,1000,10000", help="sizes, separated by commas")
    parser.add_argument("--queues", default="20", help="with each of these numbers of queues, by commas")
    parser.add_argument("--offers", type=int, default=200)
    parser.add_argument("--write", type=Path, help="keep the document and draw a picture in this directory")
    arguments = parser.parse_args()
    gc.disable()  # this program plays all agents; their garbage is not what is measured
    most = most_agents()
    results = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for asked in map(int, arguments.agents.split(",")):
            agents = min(asked, most)
            if agents < asked:
                say(f"{agents} agents in place of {asked}: no more files may be open here (ulimit -Hn)")
            for queues in map(int, arguments.queues.split(",")):
                results.append(runner.run(measure(agents, queues, arguments.offers)))
                say(json.dumps(results[-1]))
    document = {"results": results, "cores": os.cpu_count(), "load": os.getloadavg()}
    print(json.dumps(document, indent=2))
    if arguments.write:
        from plots import draw_fan_in  # noqa: PLC0415 - matplotlib is not needed to measure

        (arguments.write / "fan_in.json").write_text(json.dumps(document, indent=1) + "\n")
        draw_fan_in(results, arguments.write)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
