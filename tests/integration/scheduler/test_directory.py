"""Looking up agents for the Log tab: never long, and not again and again."""

import asyncio
from datetime import UTC, datetime

import pytest

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.records import AgentRecord
from jetbridge.scheduler import directory
from jetbridge.scheduler.directory import AgentDirectory


@pytest.fixture
def register(plane):
    async def register(site):
        record = AgentRecord(
            name="worker-1",
            instance="0" * 32,
            role="worker",
            queues=("default",),
            slots=1,
            site=site,
            token_id="x",
            registered_at=datetime.now(UTC),
        )
        await (await AgentStore.open(plane.bus)).bucket.put(record.name, record)

    return register


async def find(agents, name="worker-1"):
    return await asyncio.to_thread(agents.find, name)


async def test_an_agent_is_found_and_remembered(register, server):
    await register("paris")
    agents = AgentDirectory(BusSettings(url=server.url))
    assert (await find(agents)).site == "paris"
    server.stop()
    assert (await find(agents)).site == "paris"


async def test_it_is_asked_again_after_a_while(register, server, monkeypatch):
    monkeypatch.setattr(directory, "KNOWN_SECONDS", 0.0)
    agents = AgentDirectory(BusSettings(url=server.url))
    for site in ("paris", "rome"):
        await register(site)
        assert (await find(agents)).site == site


async def test_nobody_of_that_name(register, server):
    await register("paris")
    assert await find(AgentDirectory(BusSettings(url=server.url)), "worker-2") is None


async def test_the_bus_is_away_and_is_not_asked_again_at_once(server, monkeypatch):
    server.stop()
    agents = AgentDirectory(BusSettings(url=server.url))
    assert await find(agents) is None
    monkeypatch.setattr(agents, "_look_up", lambda _: pytest.fail("asked again"))
    assert await find(agents) is None


async def test_nobody_applied_the_topology(server):
    assert await find(AgentDirectory(BusSettings(url=server.url))) is None


def test_it_can_be_asked_from_code_that_runs_in_an_event_loop(server):
    async def page():
        return AgentDirectory(BusSettings(url=server.url)).find("worker-1")

    assert asyncio.run(page()) is None
