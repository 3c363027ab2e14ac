"""The topology: applied once or twice or by two at a time, and every drift reported."""

import asyncio

import pytest
from nats.js import api

from jetbridge.bus.apply import Drift, apply, declared, diff
from jetbridge.bus.cli import DRIFT_EXIT_CODE, main
from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusUnavailableError, TopologyError
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.subjects import EVENTS_STREAM, WORK_STREAM
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import nats

EVERYTHING = {config.name for config in declared(1)}


@pytest.fixture
async def empty(own_nats_url):
    async with open_bus(BusSettings(url=own_nats_url), "tests") as bus:
        yield bus


async def test_everything_is_missing_then_there_then_unchanged(empty):
    assert {(d.stream, d.drift) for d in await diff(empty, 1)} == {
        (name, Drift.MISSING) for name in EVERYTHING
    }
    assert {d.stream for d in await apply(empty, 1)} == EVERYTHING
    assert await diff(empty, 1) == []
    assert await apply(empty, 1) == []


async def test_all_of_it_outlives_a_restart_of_nats(run_directory):
    with Supervisor(run_directory) as supervisor:
        server = nats.start(supervisor)
        if not server.restartable:
            pytest.skip("needs a NATS server that can be stopped; the environment names one")
        async with open_bus(BusSettings(url=server.url), "tests") as bus:
            await apply(bus, 1)
        server.kill()
        server.start()
        async with open_bus(BusSettings(url=server.url), "tests") as bus:
            assert await diff(bus, 1) == []


async def test_two_at_once_end_the_same(empty):
    await asyncio.gather(apply(empty, 1), apply(empty, 1))
    assert await diff(empty, 1) == []


async def test_a_changed_limit_is_reported_and_put_back(empty):
    await apply(empty, 1)
    info = await empty.js.stream_info(EVENTS_STREAM)
    info.config.max_bytes = 4096
    await empty.js.update_stream(info.config)
    (difference,) = await diff(empty, 1)
    assert str(difference).startswith("EVENTS: max_bytes is 4096, declared")
    await apply(empty, 1)
    assert await diff(empty, 1) == []


async def test_what_nats_never_changes_is_left_to_a_person(empty):
    await empty.js.add_stream(api.StreamConfig(name=WORK_STREAM, subjects=["work.>"]))
    with pytest.raises(TopologyError, match="retention"):
        await apply(empty, 1)
    assert (await empty.js.stream_info(WORK_STREAM)).config.retention == api.RetentionPolicy.LIMITS


async def test_a_service_started_too_early_is_told_what_to_run(empty):
    with pytest.raises(TopologyError, match="jetbridge bus apply"):
        await WorkloadStore.open(empty)


async def test_no_server_is_one_sentence():
    settings = BusSettings(url=f"nats://127.0.0.1:{free_port()}", connect_timeout_seconds=0.5)
    with pytest.raises(BusUnavailableError, match="no NATS server answers"):
        async with open_bus(settings, "tests"):
            pass


def test_commands_say_what_they_did(own_nats_url, monkeypatch, capsys):
    monkeypatch.setenv("JETBRIDGE_NATS_URL", own_nats_url)
    assert main(["diff"]) == DRIFT_EXIT_CODE
    assert main(["apply"]) == 0
    assert main(["diff"]) == 0
    out = capsys.readouterr().out
    assert "WORK: missing" in out
    assert out.endswith("as declared\n")
