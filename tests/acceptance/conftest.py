"""
The stacks that several files share, for what it costs to start one: a minute of computing.

A file that changes a shared stack in a way that others could notice has one of its own, or comes last; the
order is in ``tests/conftest.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from jetbridge.devstack import demo
from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.home import workspace
from jetbridge.devstack.otlp import Collector
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import answers_http
from jetbridge.devstack.processes import Command, Supervisor
from jetbridge.devstack.stack import DevStack, StackOptions

HERE = Path(__file__).parent
FILES = {"AIRFLOW_CONN_FS_HERE": json.dumps({"conn_type": "fs", "extra": {"path": "/"}})}
TRACED_AGENTS = (
    AgentSpec(name="works", environment=lambda _: FILES),
    AgentSpec(name="waits", role="triggerer", queues=(), slots=100, environment=lambda _: FILES),
    AgentSpec(name="parses", role="dag-processor", queues=()),
)


def gathered(directory: Path, *sources: Path) -> Path:
    """Copy Dag files, and what lies in folders, into one directory."""
    for source in sources:
        for file in source.glob("*.py") if source.is_dir() else [source]:
            shutil.copy(file, directory)
    return directory


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The demo's system, with agents of all roles; Dags are in a Git repository, and none on the plane."""
    dags = gathered(
        tmp_path_factory.mktemp("site-dags"),
        workspace() / "examples" / "dags",
        HERE / "versioned_dags",
        HERE / "dags" / "held.py",
    )
    options = StackOptions(
        dags=dags,
        agents=demo.AGENTS,
        git=True,
        policy=("boundary.dag-docs=open",),  # test_dags_from_git looks at what the UI shows
        directory=tmp_path_factory.mktemp("site"),
    )
    with DevStack(options) as stack:
        yield stack


@pytest.fixture(scope="session")
def collector():
    """Takes the traces of the stack below."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def traced_site(collector, tmp_path_factory):
    """A worker, a triggerer and a Dag processor; everything is traced."""
    options = StackOptions(
        dags=gathered(
            tmp_path_factory.mktemp("traced-dags"), HERE / "traced_dags", HERE / "dags" / "deferred.py"
        ),
        agents=TRACED_AGENTS,
        isolate=False,  # else the agents could not reach a collector on this machine
        otlp_endpoint=collector.endpoint,
        directory=tmp_path_factory.mktemp("traced"),
    )
    with DevStack(options) as stack:
        yield stack


JAEGER = shutil.which("jaeger-all-in-one")
JAEGER_SECONDS = 30


class Jaeger:
    """Takes traces as they came by OTLP, and shows them as its own UI gets them."""

    def __init__(self, client, otlp, query):
        self.client, self.otlp, self.query = client, otlp, query

    def take(self, body):
        headers = {"content-type": "application/x-protobuf"}
        self.client.post(f"{self.otlp}/v1/traces", content=body, headers=headers).raise_for_status()

    def trace(self, trace_id, spans):
        """Return a trace when all its spans can be seen: what was taken is stored a moment later."""
        end = time.monotonic() + JAEGER_SECONDS
        while True:
            answer = self.client.get(f"{self.query}/api/traces/{trace_id}")
            shown = answer.json()["data"][0] if answer.is_success else {"spans": []}
            if len(shown["spans"]) >= spans or time.monotonic() > end:
                return shown
            time.sleep(0.1)


@pytest.fixture
def jaeger(tmp_path):
    """Jaeger 1 in one process, on ports of its own: every one that this version says it has."""
    if JAEGER is None:
        pytest.skip("there is no 'jaeger-all-in-one' on PATH to read the traces back from")
    told = subprocess.run([JAEGER, "help"], check=True, capture_output=True, text=True).stdout
    flags = [word.removeprefix("--") for word in told.split() if word.endswith("host-port")]
    at = {flag: f"127.0.0.1:{free_port()}" for flag in flags if "zipkin.host-port" not in flag}
    words = [f"--{flag}={address}" for flag, address in at.items()]
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.add("jaeger", Command(argv=[JAEGER, *words], env=dict(os.environ)))
        process.start()
        process.wait_ready(answers_http(f"http://{at['admin.http.host-port']}/"))
        with httpx.Client(timeout=60, trust_env=False) as client:
            addresses = (at["collector.otlp.http.host-port"], at["query.http-server.host-port"])
            yield Jaeger(client, *(f"http://{address}" for address in addresses))
