"""A real sentinel beside a process that dies: gateway, health record, router; only Airflow is missing."""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from jetbridge.bus.health import HealthStore, health_key
from jetbridge.bus.mirror import BucketMirror
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.records import Health
from jetbridge.router.metrics import RouterMetrics
from jetbridge.router.rounds import Rounds

SITE = "paris"
AGENT = """
import sys, time
from pathlib import Path
from jetbridge.agent.mark import leave_mark
from jetbridge.agent.settings import AgentSettings
name, instance, directory = sys.argv[1:]
own = AgentSettings(gateway="https://g", token_file="t", name=name, site="paris", data_dir=Path(directory))
with leave_mark(own, instance, "worker"):
    time.sleep(600)
"""


def spawn(words, log):
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, *words], stdout=output, stderr=output)


@pytest.fixture
async def sentinel(gateway, tokens, certificates, tmp_path, eventually):
    """``jetbridge sentinel site``, watching what is below a directory."""
    token, _ = await tokens.create("sentinel")
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(str(token))
    options = {
        "--gateway": gateway.url,
        "--ca-file": certificates.ca,
        "--token-file": file,
        "--name": f"s-{os.getpid()}-{tmp_path.name[-8:].strip('-_').lower().replace('_', '-')}",
        "--site": SITE,
        "--data-dir": tmp_path / "sentinel",
        "--watch-dirs": tmp_path / "agents" / "*",
        "--look-interval-seconds": "0.2",
        "--listen-port": "0",
    }
    words = [str(word) for option in options.items() for word in option]
    log = tmp_path / "sentinel.log"
    process = spawn(["-m", "jetbridge.cli", "sentinel", "site", *words], log)
    await eventually(lambda: b"registered with the gateway" in log.read_bytes(), 60)
    yield log
    process.kill()
    process.wait()


@pytest.fixture
def living(tmp_path, eventually):
    """Start a process that marks its place as an agent of the test does."""
    started = []

    async def live(agent):
        directory = tmp_path / "agents" / agent.name
        directory.mkdir(parents=True)
        words = ["-c", AGENT, agent.name, agent.instance, str(directory)]
        started.append(spawn(words, tmp_path / f"{agent.name}.log"))
        await eventually((directory / "agent.json").exists, 60)
        return started[-1]

    yield live
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture
async def asked(bus, store):
    """What a router asks the bridge to queue again, and why, by workload; other tests' as well."""
    asked, tasks = {}, []

    async def requeue(record):
        asked[record.workload_id] = record.reason

    workloads = BucketMirror(bus, store.bucket)
    health = BucketMirror(bus, (await HealthStore.open(bus)).bucket)
    # Only changes make it look: a round by the clock would come after the test's patience.
    rounds = Rounds(workloads, health, store, requeue, RouterMetrics(), 3600)
    tasks += [asyncio.create_task(work) for work in (workloads.run(), health.run())]
    await asyncio.wait_for(asyncio.gather(workloads.ready.wait(), health.ready.wait()), 15)
    tasks.append(asyncio.create_task(rounds.run()))
    yield asked
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_lease_of_a_process_that_was_seen_to_die_is_taken_back_at_once(
    sentinel, living, asked, make_agent, store, workload, bus, eventually, problem
):
    agent = await make_agent()
    await agent.register(site=SITE)
    process = await living(agent)
    await store.submit(workload())
    lease = LeaseKey.parse((await agent.lease())[0])
    await eventually(lambda: b"agent.seen" in sentinel.read_bytes(), 60)
    process.kill()
    process.wait()

    # No plane sentinel runs here, and no lease time passes: only the site's sentinel can have told.
    reason = await eventually(lambda: asked.get(lease.workload_id), 60)
    assert f"agent {agent.name} was seen to end (seen by s-" in reason
    entry = await (await HealthStore.open(bus)).bucket.get(health_key(agent.name, agent.instance))
    assert (entry.record.health, entry.record.attested) == (Health.LOST, True)
    problem(await agent.report(str(lease)), "agent-ended")


async def test_a_process_that_was_replaced_before_the_word_came_costs_its_successor_nothing(
    sentinel, living, asked, make_agent, store, workload, eventually
):
    agent = await make_agent()
    await agent.register(site=SITE)
    process = await living(agent)
    agent.instance = "f" * 32
    await agent.register(site=SITE)
    await store.submit(workload())
    lease, _ = await agent.lease()
    process.kill()
    process.wait()
    await eventually(lambda: b"end.refused" in sentinel.read_bytes(), 60)
    assert (await agent.heartbeat(leases=[lease])).json()["leases"] == [lease]
    assert LeaseKey.parse(lease).workload_id not in asked
