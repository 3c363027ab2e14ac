"""
A plane for Dag processors: a database, NATS, the bridge and a gateway as processes, and not one Dag file.

The tests read the database to see what the plane knows. Airflow's own Dag processor can be run on another
database, to compare.
"""

import json
import secrets
import ssl
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

sys.path.insert(0, str(Path(__file__).parent / "support"))

from airflow_console import airflow_console

from jetbridge.devstack import airflow as devstack_airflow
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.plane import (
    EVERYTHING_OPEN,
    JETBRIDGE,
    Plane,
    apply_topology,
    create_token,
    set_policy,
    write_secret,
)
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import accepts_connections, answers_http
from jetbridge.devstack.processes import Command, Supervisor
from jetbridge.devstack.servers import nats, redis
from jetbridge.devstack.servers.postgres import PostgresServer
from jetbridge.devstack.tls import make_certificates

WAIT_SECONDS = 90

FAST = {
    # As quick as Airflow's manager goes: its loop takes a second.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "1",
}


@dataclass
class Database:
    """A migrated metadata database, to be read with SQL."""

    url: str
    environment: dict[str, str]
    _kept: psycopg.Connection | None = None

    def rows(self, query, *parameters):
        # One connection for all questions: tests ask until something is so, and connecting costs both sides.
        if self._kept is None or self._kept.closed:
            self._kept = psycopg.connect(self.url, row_factory=dict_row, autocommit=True)
        return self._kept.execute(query, parameters).fetchall()

    def close(self):
        if self._kept is not None:
            self._kept.close()

    def answers(self):
        try:
            return bool(self.rows("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def execute(self, statement, *parameters):
        with psycopg.connect(self.url) as connection:
            connection.execute(statement, parameters)

    def dag(self, dag_id):
        found = self.rows("SELECT * FROM dag WHERE dag_id = %s", dag_id)
        return found[0] if found else None

    def is_active(self, dag_id):
        dag = self.dag(dag_id)
        return dag is not None and not dag["is_stale"]

    def import_errors(self, bundle):
        rows = self.rows("SELECT filename, stacktrace FROM import_error WHERE bundle_name = %s", bundle)
        return {row["filename"]: row["stacktrace"] for row in rows}

    def bundle(self, name):
        found = self.rows("SELECT * FROM dag_bundle WHERE name = %s", name)
        return found[0] if found else None


@dataclass
class Servers:
    """The servers of this session."""

    supervisor: Supervisor
    postgres: PostgresServer
    plane: Plane
    secrets: devstack_airflow.Secrets
    directory: Path
    databases: list = field(default_factory=list)

    def database(self, name, dags):
        url = self.postgres.create_database(name, devstack_airflow.DATABASE)
        self.databases.append(Database(url, self.airflow_environment(name, url, dags)))
        return self.databases[-1]

    def airflow_environment(self, name, url, dags):
        options = devstack_airflow.AirflowOptions(
            executor="LocalExecutor", dags=dags, url=self.plane.airflow_url
        )
        return dict(
            devstack_airflow.plane_environment(self.directory / name / "airflow", options, url, self.secrets)
        )


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    with open_servers(tmp_path_factory.mktemp("dag-processing")) as servers:
        yield servers


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory):
    """For a test of whole tables: those of the session have what other tests left in them."""
    with open_servers(tmp_path_factory.mktemp("dag-processing-own")) as servers:
        yield servers


@contextmanager
def open_servers(directory):
    with Supervisor(directory) as supervisor:
        server, migrated = devstack_airflow.start_database(supervisor)
        url = server.create_database(devstack_airflow.DATABASE)
        own = devstack_airflow.Secrets()
        secret_file = directory / "jwt-secret"
        write_secret(secret_file, own.jwt_secret)
        airflow_url = f"http://127.0.0.1:{free_port()}"
        plane = Plane(nats.start(supervisor), redis.start(supervisor), airflow_url, secret_file)
        apply_topology(supervisor, plane)
        # What is compared with stock Airflow, or looked for in the database, has to be as it was written.
        # Not the source: that it stays, and what is shown in its place, is looked at here.
        set_policy(supervisor, plane, [word for word in EVERYTHING_OPEN if "dag-source" not in word])
        found = Servers(supervisor, server, plane, own, directory)
        if not migrated:
            environment = found.airflow_environment("migrate", url, directory)
            devstack_airflow.migrate(supervisor, server, environment)
        yield found
        for database in found.databases:
            database.close()


@dataclass
class Processor:
    """A Dag processor agent's process."""

    name: str
    process: object
    data_dir: Path

    def log(self, lines=4000):
        return self.process.log_tail(lines)


@dataclass
class DagPlane:
    """The running plane. It holds not one Dag file."""

    servers: Servers
    database: Database
    bridge: object
    gateway: object
    gateway_url: str
    ca: Path
    tokens: Path
    started: list = field(default_factory=list)

    def token(self, name):
        return create_token(self.servers.plane, name, self.tokens)

    def start(self, bundles, *options, name=None, env=None, settings=None):
        """Start a Dag processor of ``bundles`` (as in Airflow's configuration)."""
        name = name or f"parser-{uuid.uuid4().hex[:6]}"
        data_dir = self.tokens.parent / "agents" / f"{name}-{uuid.uuid4().hex[:4]}"
        data_dir.mkdir(parents=True)
        bundle_file = data_dir / "bundles.json"
        bundle_file.write_text(json.dumps(bundles))
        command = Command(
            argv=[
                JETBRIDGE,
                "dag-processor",
                *("--gateway", self.gateway_url),
                *("--ca-file", str(self.ca)),
                *("--token-file", str(self.token(name))),
                *("--name", name),
                *("--data-dir", str(data_dir / "data")),
                *("--bundles", str(bundle_file)),
                *("--stop-seconds", "5"),
                *options,
            ],
            env=base_environment(FAST | (settings or {}) | (env or {})),
            stop_seconds=20,
        )
        process = self.servers.supervisor.start(f"agent-{name}-{uuid.uuid4().hex[:4]}", command)
        self.started.append(Processor(name, process, data_dir))
        return self.started[-1]

    def client(self, name, role="dag-processor"):
        """Register an agent by hand; returns a function that posts as it."""
        token = self.token(name).read_text().strip()
        context = ssl.create_default_context(cafile=self.ca)
        client = httpx.Client(base_url=self.gateway_url, verify=context, timeout=60)
        body = {"name": name, "instance": secrets.token_hex(16), "role": role}
        answer = client.post("/v1/agents", json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        headers = {"Authorization": f"Bearer {answer.json()['credential']}"}

        def post(path, body, **more):
            return client.post(f"/v1/agents/{name}/bundles/{path}", json=body, headers=headers, **more)

        post.http, post.name, post.headers = client, name, headers
        return post


@pytest.fixture(scope="session")
def plane(servers, tmp_path_factory):
    return start_plane(servers, tmp_path_factory.mktemp("dag-plane"))


@pytest.fixture(scope="module")
def own_plane(own_servers, tmp_path_factory):
    return start_plane(own_servers, tmp_path_factory.mktemp("dag-plane-own"))


def start_plane(servers, directory):
    empty = directory / "no-dags"
    empty.mkdir()
    database = servers.database("remote", empty)
    # The plane is configured for no bundle at all.
    env = database.environment | servers.plane.bus_environment
    env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = "[]"
    env["AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD"] = "3"
    bridge = servers.supervisor.start(
        "bridge", Command(argv=[JETBRIDGE, "bridge"], env=base_environment(env))
    )
    certificates = make_certificates(directory / "tls", "127.0.0.1", "localhost")
    port = free_port()
    gateway = servers.supervisor.start(
        "gateway",
        Command(
            argv=[JETBRIDGE, "gateway"],
            env=servers.plane.gateway_environment("127.0.0.1", port, certificates),
        ),
        ready=accepts_connections("127.0.0.1", port),
    )
    bridge.wait_ready(lambda: "bridge started" in bridge.log_tail(200), timeout_seconds=WAIT_SECONDS)
    tokens = directory / "tokens"
    tokens.mkdir()
    return DagPlane(servers, database, bridge, gateway, f"https://127.0.0.1:{port}", certificates.ca, tokens)


@pytest.fixture(scope="session")
def execution_api(plane):
    """Airflow's Execution API on the plane's database."""
    command = devstack_airflow.airflow_command(
        plane.database.environment, "api-server", "--apps", "execution"
    )
    process = plane.servers.supervisor.start("execution-api", command)
    url = f"{plane.servers.plane.airflow_url}/execution/health"
    process.wait_ready(answers_http(url), timeout_seconds=120)
    return process


@pytest.fixture
def start(plane):
    """Start Dag processors that end with the test."""
    before = len(plane.started)
    yield plane.start
    for processor in plane.started[before:]:
        processor.process.kill()


@pytest.fixture
def database(plane):
    return plane.database


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "dags"
    path.mkdir()
    return path


@pytest.fixture
def bundle():
    """A bundle name of this test's own, which its Dags' names begin with."""
    return f"b{uuid.uuid4().hex[:8]}"


@pytest.fixture
def eventually():
    """Wait until ``condition()`` is true and return what it returned."""

    def wait(condition, seconds=WAIT_SECONDS, what=""):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
            time.sleep(0.05)
        return found

    return wait


@pytest.fixture(scope="session")
def local_bundle():
    return _local_bundle


@pytest.fixture(scope="session")
def dag_source():
    return _dag_source


def _local_bundle(name, path, **kwargs):
    return {
        "name": name,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(path), **kwargs},
    }


def _dag_source(dag_id, *, tasks=("task",), schedule=None, **kwargs):
    """A small Dag file."""
    extra = "".join(f", {key}={value!r}" for key, value in kwargs.items())
    lines = [
        "from airflow.providers.standard.operators.empty import EmptyOperator",
        "from airflow.sdk import DAG",
        f"with DAG({dag_id!r}, schedule={schedule!r}{extra}):",
        *(f"    EmptyOperator(task_id={task!r})" for task in tasks),
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def in_airflow(plane):
    """Run a script in a process of Airflow's on the plane, as its scheduler would; returns what it prints."""

    with airflow_console(base_environment(plane.database.environment)) as console:
        yield console.run
