"""
A plane for triggers: Airflow's real database, its Execution API, NATS, the bridge and a gateway as processes.

The tests play Airflow's scheduler: they make runs, defer task instances, and look what became of them.
"""

import secrets
import ssl
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from airflow.jobs.job import Job
from airflow.utils.session import create_session
from sqlalchemy import delete

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
from jetbridge.devstack.tls import make_certificates

from .world import World, airflow_points_at, forget_triggers

TRIGGERS = Path(__file__).with_name("on_the_agent")
"""On the module path of triggerers: what a site's own code would be."""

LOST_AFTER_SECONDS = 5
WAIT_SECONDS = 60


@dataclass(frozen=True)
class Database:
    """Airflow's metadata database, and the environment of a process on the plane."""

    supervisor: Supervisor
    environment: dict[str, str]
    secrets: devstack_airflow.Secrets
    airflow_url: str


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """A migrated database of this session; this process's Airflow uses it meanwhile."""
    directory = tmp_path_factory.mktemp("triggers")
    with Supervisor(directory) as supervisor:
        server, migrated = devstack_airflow.start_database(supervisor)
        url = server.create_database(devstack_airflow.DATABASE)
        own = devstack_airflow.Secrets()
        airflow_url = f"http://127.0.0.1:{free_port()}"
        environment = devstack_airflow.plane_environment(
            directory / "airflow",
            devstack_airflow.AirflowOptions(executor="LocalExecutor", dags=directory, url=airflow_url),
            url,
            own,
        )
        if not migrated:
            devstack_airflow.migrate(supervisor, server, environment)
        with airflow_points_at(url, own.fernet_key):
            yield Database(supervisor, dict(environment), own, airflow_url)


@pytest.fixture
def world(database):  # noqa: ARG001 - this process's Airflow uses it
    return World()


@pytest.fixture(scope="module")
def no_triggers(database):  # noqa: ARG001
    """Nothing left over by modules before: triggers and triggerers of this database."""

    forget_triggers()
    with create_session() as session:
        session.execute(delete(Job))


@dataclass
class Triggerer:
    """A triggerer agent's process."""

    name: str
    process: object
    data_dir: Path

    @property
    def attached(self):
        """How often this agent has attached."""
        return self.process.log_tail(1_000_000).count("triggerer attached")

    def start(self):
        before = self.attached
        self.process.start()
        self.process.wait_ready(lambda: self.attached > before, timeout_seconds=WAIT_SECONDS)

    def logs(self):
        """The logs of triggers on this agent's disk, by relative path."""
        root = self.data_dir / "logs"
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.log")}


@dataclass
class PlaneProcesses:
    """The running plane."""

    database: Database
    plane: Plane
    bridge: object
    gateway: object
    gateway_url: str
    ca: Path
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def metrics(self):
        return httpx.get(f"{self.gateway_url}/metrics", verify=_tls(self.ca)).text

    def token(self, name):
        directory = self.directory / "tokens"
        directory.mkdir(exist_ok=True)
        return create_token(self.plane, name, directory)

    def start_triggerer(self, name=None, *options, env=None):
        name = name or f"triggerer-{uuid.uuid4().hex[:6]}"
        data_dir = self.directory / "agents" / name
        command = Command(
            argv=[
                JETBRIDGE,
                "triggerer",
                *("--gateway", self.gateway_url),
                *("--ca-file", str(self.ca)),
                *("--token-file", str(self.token(name))),
                *("--name", name),
                *("--data-dir", str(data_dir)),
                *("--stop-seconds", "5"),
                *options,
            ],
            env=base_environment(self.environment | (env or {})),
            stop_seconds=30,
        )
        process = self.database.supervisor.add(f"agent-{name}", command, tier="agents")
        triggerer = Triggerer(name, process, data_dir)
        triggerer.start()
        return triggerer


@pytest.fixture(scope="session")
def plane_processes(database, s3, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trigger-plane")
    supervisor = database.supervisor
    secret_file = directory / "jwt-secret"
    write_secret(secret_file, database.secrets.jwt_secret)
    plane = Plane(nats.start(supervisor), redis.start(supervisor), database.airflow_url, secret_file)
    apply_topology(supervisor, plane)
    # What is compared with stock Airflow, or looked for in the database, has to be as it was written.
    set_policy(supervisor, plane, EVERYTHING_OPEN)
    World.nats_url = plane.nats.url
    api = devstack_airflow.airflow_command(database.environment, "api-server", "--apps", "execution")
    execution_api = supervisor.start("execution-api", api)
    bridge = supervisor.start("bridge", bridge_command(database, plane))
    certificates = make_certificates(directory / "tls", "127.0.0.1", "localhost")
    port = free_port()
    gateway = supervisor.start(
        "gateway",
        Command(argv=[JETBRIDGE, "gateway"], env=plane.gateway_environment("127.0.0.1", port, certificates)),
        ready=accepts_connections("127.0.0.1", port),
    )
    bridge.wait_ready(lambda: "bridge started" in bridge.log_tail(200), timeout_seconds=WAIT_SECONDS)
    execution_api.wait_ready(answers_http(f"{database.airflow_url}/execution/health"), timeout_seconds=120)
    environment = {
        "PYTHONPATH": str(TRIGGERS),
        "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": s3.endpoint_url,
        "JETBRIDGE_OBJECT_STORE_ACCESS_KEY": s3.access_key,
        "JETBRIDGE_OBJECT_STORE_SECRET_KEY": s3.secret_key,
        "JETBRIDGE_OBJECT_STORE_REGION": s3.region,
        "JETBRIDGE_OBJECT_STORE_XCOM_BUCKET": "triggers-xcom",
        "JETBRIDGE_OBJECT_STORE_LOGS_BUCKET": "triggers-logs",
    }
    return PlaneProcesses(
        database,
        plane,
        bridge,
        gateway,
        f"https://127.0.0.1:{port}",
        certificates.ca,
        directory,
        environment,
    )


def bridge_command(database, plane):
    env = database.environment | plane.bus_environment
    env["JETBRIDGE_BRIDGE_TRIGGERER_LOST_AFTER_SECONDS"] = str(LOST_AFTER_SECONDS)
    return Command(argv=[JETBRIDGE, "bridge"], env=base_environment(env))


@pytest.fixture(scope="module")
def running_plane(plane_processes, no_triggers):  # noqa: ARG001
    """The plane, without triggers to begin with."""
    return plane_processes


@pytest.fixture
def start_triggerer(running_plane):
    """Start triggerers that end with the test."""
    started = []

    def start(*args, **kwargs):
        started.append(running_plane.start_triggerer(*args, **kwargs))
        return started[-1]

    yield start
    for triggerer in started:
        triggerer.process.kill()


@pytest.fixture
def eventually():
    """Wait until ``condition()`` is true and return what it returned."""

    def wait(condition, seconds=WAIT_SECONDS, what=""):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture
def agent_client(running_plane):
    """Register an agent by hand; returns a function that posts as it."""
    clients = []

    def register(name=None, role="triggerer", **changes):
        name = name or f"by-hand-{uuid.uuid4().hex[:6]}"
        token = running_plane.token(name).read_text().strip()
        client = httpx.Client(base_url=running_plane.gateway_url, verify=_tls(running_plane.ca), timeout=60)
        clients.append(client)
        body = {"name": name, "instance": secrets.token_hex(16), "role": role, "slots": 100, **changes}
        answer = client.post("/v1/agents", json=body, headers=_bearer(token))
        assert answer.status_code == 200, answer.text
        headers = _bearer(answer.json()["credential"])

        def post(path, body, headers=headers):
            return client.post(f"/v1/agents/{name}/{path}", json=body, headers=headers)

        post.client, post.name, post.headers = client, name, headers
        return post

    yield register
    for client in clients:
        client.close()


def _tls(ca):

    return ssl.create_default_context(cafile=ca)


def _bearer(token):
    return {"Authorization": f"Bearer {token}"}


if str(TRIGGERS) not in sys.path:
    sys.path.append(str(TRIGGERS))
