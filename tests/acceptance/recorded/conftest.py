"""
A site of all four roles of which everything is recorded: what its agents send, and all processes' spans.

Three files share it. That with the markers needs it whole; the one with the traces comes last and ends it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

sys.path.insert(0, str(Path(__file__).parent / "support"))

import jaegerkit
from markedkit import DAG_ID, HELD, OPENED_BY_QUEUE, PLANTED, QUEUES, RUN_SECONDS, states

from jetbridge.bus.connection import open_bus
from jetbridge.bus.policies import PolicyStore
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.policies import PolicyRecord, queue_scope
from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.captured import on_the_plane
from jetbridge.devstack.markers import new_marker
from jetbridge.devstack.otlp import Collector
from jetbridge.devstack.stack import DevStack, StackOptions
from jetbridge.sealing.keyring import new_key

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def markers():
    return {name: new_marker(name) for name in PLANTED}


@pytest.fixture(scope="session")
def by_queue():
    """What a task in each queue holds, by class."""
    return {queue: {data: new_marker(f"{queue}-{data}") for data in QUEUES} for queue in QUEUES}


@pytest.fixture(scope="session")
def dags(markers, by_queue, tmp_path_factory):
    directory = tmp_path_factory.mktemp("marked-dags")
    for template in (HERE / "marked_dags").glob("*.in"):
        text = template.read_text()
        for name, marker in markers.items():
            text = text.replace(f"@@{name}@@", marker)
        assert "@@" not in text, template
        (directory / template.stem).write_text(text)
    for file in (HERE / "held_dags" / "held.py", *(HERE / "plain_dags").glob("*.py")):
        shutil.copy(file, directory)
    (directory / "held.json").write_text(json.dumps(by_queue))
    return directory


@pytest.fixture(scope="session")
def collector():
    """Takes the spans and metrics of all processes."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def stack(markers, dags, collector, tmp_path_factory):
    key_file = tmp_path_factory.mktemp("site") / "site.key"
    key_file.write_text(new_key())
    own = {
        "JETBRIDGE_AGENT_SITE_KEY_FILE": str(key_file),
        "MARKED_ENVIRONMENT": markers["environment"],
        "AIRFLOW_CONN_MARKED": json.dumps({"conn_type": "http", "password": markers["connection"]}),
        "AIRFLOW_CONN_FS_HERE": json.dumps({"conn_type": "fs", "extra": {"path": "/"}}),
        "AIRFLOW_VAR_MARKED": markers["variable"],
        "AIRFLOW_VAR_MARKED_RENDERED": markers["variable-rendered"],
        "PYTHONPATH": str(dags),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "4",
    }
    agents = [
        AgentSpec(name="works", slots=8, queues=("default", *QUEUES), environment=lambda _: own),
        AgentSpec(name="waits", role="triggerer", queues=(), slots=100, environment=lambda _: own),
        AgentSpec(name="parses", role="dag-processor", queues=(), environment=lambda _: own),
        AgentSpec(name="watches", role="sentinel", queues=(), environment=lambda _: own),
    ]
    options = StackOptions(
        dags=dags,
        agents=agents,
        gateways=1,
        record=True,
        isolate=False,  # else the agents could not reach a collector on this machine
        otlp_endpoint=collector.endpoint,
        directory=tmp_path_factory.mktemp("marked"),
    )
    with DevStack(options) as stack:
        asyncio.run(open_by_queue(stack.nats.url))
        # Not await_dag: one of the files is broken on purpose.
        stack.client.wait(lambda: are_known(stack), "the Dags to be parsed", timeout_seconds=120)
        yield stack


async def open_by_queue(nats_url):
    async with open_bus(BusSettings(url=nats_url), "jetbridge-tests") as bus:
        policies = await PolicyStore.open(bus)
        for data in (*OPENED_BY_QUEUE, "connections"):
            rules, now = {data: "open"}, datetime.now(UTC)
            await policies.change(None, PolicyRecord(scope=queue_scope(data), boundary=rules, changed_at=now))


def are_known(stack):
    return {DAG_ID, HELD, "deferred", "traced"} <= {dag["dag_id"] for dag in stack.client.get("dags")["dags"]}


@pytest.fixture(scope="module")
def run(stack, by_queue):
    """Run both Dags; returns the run of the first."""
    password = by_queue["connections"]["connections"]
    stack.client.post(
        "connections", {"connection_id": "of_the_plane", "conn_type": "http", "password": password}
    )
    runs = {}
    for dag_id in (DAG_ID, HELD):
        stack.client.unpause(dag_id)
        runs[dag_id] = stack.client.trigger(dag_id)
    for dag_id, run_id in runs.items():
        stack.await_run(dag_id, run_id, timeout_seconds=RUN_SECONDS)
    assert states(stack, runs[HELD], HELD) == dict.fromkeys(QUEUES, "success")
    return runs[DAG_ID]


@pytest.fixture(scope="module")
def everything(stack, collector):
    """Return what yields the name and the bytes of everything that is on the plane or was sent to it."""

    def everything():
        yield from on_the_plane(stack)
        yield "redis", redis_dump(stack.redis.url)
        yield "spans", b"\n".join(collector.raw)

    return everything


def redis_dump(url):
    client = redis.Redis.from_url(url)
    client.config_set("rdbcompression", "no")
    return b"\n".join(key + b" " + client.dump(key) for key in client.scan_iter("*"))


@pytest.fixture
def jaeger(tmp_path):
    """Jaeger, where there is one."""
    if jaegerkit.BINARY is None:
        pytest.skip("there is no 'jaeger-all-in-one' on PATH to read the traces back from")
    with jaegerkit.running(tmp_path) as jaeger:
        yield jaeger
