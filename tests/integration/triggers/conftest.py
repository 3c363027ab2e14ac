"""
A plane for triggers: Airflow's real database, its Execution API, NATS, the bridge and a gateway as processes.

The tests play Airflow's scheduler: they make runs, defer task instances, and look what became of them.
"""

import secrets
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from jetbridge.devstack import airflow as devstack_airflow
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.plane import JETBRIDGE, Plane, apply_topology, create_token, write_secret
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import accepts_connections, answers_http
from jetbridge.devstack.processes import Command, Supervisor
from jetbridge.devstack.servers import nats, redis
from jetbridge.devstack.tls import make_certificates

TRIGGERS = Path(__file__).with_name("on_the_agent")
"""On the module path of triggerers: what a site's own code would be."""

LOST_AFTER_SECONDS = 3
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


@contextmanager
def airflow_points_at(url, fernet_key):
    """Have the Airflow in this process, which other tests may have imported before, use a database."""
    from airflow import settings
    from airflow.configuration import conf
    from airflow.models.crypto import get_fernet

    before = {
        ("database", "sql_alchemy_conn"): conf.get("database", "sql_alchemy_conn"),
        ("core", "fernet_key"): conf.get("core", "fernet_key"),
    }

    def use(values):
        for (section, option), value in values.items():
            conf.set(section, option, value)
        get_fernet.cache_clear()
        settings.dispose_orm(do_log=False)
        settings.configure_vars()
        settings.configure_orm()

    use({("database", "sql_alchemy_conn"): url, ("core", "fernet_key"): fernet_key})
    yield
    use(before)


class World:
    """Airflow's own part: Dags, runs, deferred task instances."""

    def __init__(self):
        self.dag_id = f"dag-{uuid.uuid4().hex[:8]}"
        self.sync_dag()

    def sync_dag(self, *operators, dag_id=None, **kwargs):
        """Have the plane know a Dag, as a Dag processor does; ``operators`` are made in it."""
        import pendulum
        from airflow.dag_processing.collection import update_dag_parsing_results_in_db
        from airflow.models.dagbundle import DagBundleModel
        from airflow.providers.standard.operators.empty import EmptyOperator
        from airflow.sdk import DAG
        from airflow.serialization.serialized_objects import LazyDeserializedDAG
        from airflow.utils.session import create_session

        dag_id = dag_id or self.dag_id
        kwargs.setdefault("schedule", None)
        with DAG(dag_id, start_date=pendulum.datetime(2026, 1, 1), **kwargs) as dag:
            for make in operators or (lambda: EmptyOperator(task_id="task"),):
                make()
        dag.relative_fileloc = f"{dag_id}.py"
        with create_session() as session:
            session.merge(DagBundleModel(name="dags"))
            session.flush()
            update_dag_parsing_results_in_db(
                "dags", None, [LazyDeserializedDAG.from_dag(dag)], {}, None, set(), session
            )

    def run(self, session, dag_id=None):
        """Make a run and return it."""
        import pendulum
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        dag = SerializedDagModel.get_dag(dag_id or self.dag_id, session=session)
        return dag.create_dagrun(
            run_id=f"run-{uuid.uuid4().hex[:8]}",
            logical_date=None,
            run_after=pendulum.now("UTC"),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state="running",
            session=session,
        )

    def task_instance(self, dag_id=None):
        """A task instance of a new run; returns its id."""
        from airflow.utils.session import create_session

        with create_session() as session:
            return str(self.run(session, dag_id).get_task_instances(session=session)[0].id)

    def schedule(self, dag_id):
        """Schedule the task of a new run as the scheduler does: one that starts from its trigger is deferred."""
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.utils.session import create_session

        with create_session() as session:
            run = self.run(session, dag_id)
            run.dag = SerializedDagModel.get_dag(dag_id, session=session)
            ti = run.get_task_instances(session=session)[0]
            ti.task = run.dag.get_task(ti.task_id)
            run.schedule_tis([ti], session=session)
            return str(ti.id)

    def defer(self, trigger, *, queue=None, timeout=None, ti_id=None):
        """Defer a task instance of a new run to a trigger, as the Execution API does; return both ids."""
        from airflow._shared.timezones import timezone
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session
        from airflow.utils.state import TaskInstanceState

        ti_id = ti_id or self.task_instance()
        with create_session() as session:
            row = Trigger.from_object(trigger)
            row.queue = queue
            session.add(row)
            session.flush()
            ti = session.get(TaskInstance, uuid.UUID(ti_id))
            ti.state = TaskInstanceState.DEFERRED
            ti.trigger_id = row.id
            ti.try_number = 1
            ti.next_method = "execute_complete"
            ti.next_kwargs = {}
            ti.start_date = timezone.utcnow()
            if timeout is not None:
                ti.trigger_timeout = timezone.utcnow() + timedelta(seconds=timeout)
            return ti_id, row.id

    def ti(self, ti_id):
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            return session.get(TaskInstance, uuid.UUID(ti_id))

    def state(self, ti_id):
        return self.ti(ti_id).state

    def event(self, ti_id):
        """What the task would be resumed with."""
        from airflow.models.trigger import _decode_next_kwargs

        return _decode_next_kwargs(self.ti(ti_id).next_kwargs)["event"]

    def failure(self, ti_id):
        """With what the task would be resumed only to fail."""
        ti = self.ti(ti_id)
        return "".join(ti.next_kwargs["traceback"] or []) if ti.next_method == "__fail__" else None

    def watch(self, name, trigger):
        """Have an asset watched by a trigger, as a Dag that is scheduled by it does."""
        from airflow.models.dag import DagModel
        from airflow.sdk import Asset, AssetWatcher
        from airflow.utils.session import create_session
        from sqlalchemy import update

        watcher = AssetWatcher(name=f"watcher-of-{name}", trigger=trigger)
        asset = Asset(name=name, uri=f"test://{name}", watchers=[watcher])
        dag_id = f"consumer-of-{name}"
        self.sync_dag(dag_id=dag_id, schedule=[asset])
        with create_session() as session:  # assets of paused Dags are not watched
            session.execute(update(DagModel).where(DagModel.dag_id == dag_id).values(is_paused=False))
        self.sync_dag(dag_id=dag_id, schedule=[asset])

    def asset_events(self, name):
        """The payloads of an asset's events, oldest first."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        with create_session() as session:
            rows = session.scalars(query.where(AssetModel.name == name).order_by(AssetEvent.id))
            return [extra["payload"] for extra in rows]

    def xcom(self, ti_id, key="return_value"):
        """What the plane keeps of an XCom."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        ti = self.ti(ti_id)
        query = select(XComModel.value).where(
            XComModel.run_id == ti.run_id, XComModel.dag_id == ti.dag_id, XComModel.key == key
        )
        with create_session() as session:
            return session.scalar(query)

    def set_xcom(self, ti_id, key, value):
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        ti = self.ti(ti_id)
        with create_session() as session:
            XComModel.set(
                key=key,
                value=value,
                dag_id=ti.dag_id,
                run_id=ti.run_id,
                task_id=ti.task_id,
                serialize=False,
                session=session,
            )

    def trigger_exists(self, trigger_id):
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session

        with create_session() as session:
            return session.get(Trigger, trigger_id) is not None

    def clear(self, ti_id):
        """Clear a task instance as the UI does; it is scheduled again under a new id, which is returned."""
        from airflow.models.taskinstance import TaskInstance, clear_task_instances
        from airflow.utils.session import create_session

        with create_session() as session:
            ti = session.get(TaskInstance, uuid.UUID(ti_id))
            clear_task_instances([ti], session)
            ti.state = "scheduled"  # what the scheduler does next
            return str(ti.id)

    def set_state(self, ti_id, state):
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            session.get(TaskInstance, uuid.UUID(ti_id)).state = state

    def holder(self, trigger_id):
        """The number of the triggerer that holds a trigger."""
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session

        with create_session() as session:
            row = session.get(Trigger, trigger_id)
            return row.triggerer_id if row else None

    def agent_of(self, trigger_id):
        """The name of the agent that holds a trigger."""
        job = self.job(self.holder(trigger_id))
        return job.hostname if job else None

    def job_of(self, agent):
        """The open triggerer of an agent."""
        from airflow.jobs.job import Job
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            return session.scalar(select(Job).where(Job.hostname == agent, Job.end_date.is_(None)))

    def job(self, number):
        from airflow.jobs.job import Job
        from airflow.utils.session import create_session

        with create_session() as session:
            return session.get(Job, number) if number else None


@pytest.fixture
def world(database):  # noqa: ARG001 - this process's Airflow uses it
    return World()


@pytest.fixture(scope="module")
def no_triggers(database):  # noqa: ARG001
    """Nothing left over by modules before: triggers and triggerers of this database."""
    from airflow.jobs.job import Job
    from airflow.models.asset import AssetWatcherModel
    from airflow.models.callback import Callback
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import delete, update

    with create_session() as session:
        session.execute(update(TaskInstance).values(trigger_id=None))
        session.execute(delete(AssetWatcherModel))
        session.execute(delete(Callback))
        session.execute(delete(Trigger))
        session.execute(delete(Job))


@dataclass
class Triggerer:
    """A triggerer agent's process."""

    name: str
    process: object
    data_dir: Path

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

    def token(self, name):
        directory = self.directory / "tokens"
        directory.mkdir(exist_ok=True)
        return create_token(self.plane, name, directory)

    def start_triggerer(self, name=None, *options, env=None, wait=True):
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
        process.start()
        if wait:
            process.wait_ready(lambda: "triggerer attached" in process.log_tail(2000), timeout_seconds=WAIT_SECONDS)
        return Triggerer(name, process, data_dir)


@pytest.fixture(scope="session")
def plane_processes(database, s3, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trigger-plane")
    supervisor = database.supervisor
    secret_file = directory / "jwt-secret"
    write_secret(secret_file, database.secrets.jwt_secret)
    plane = Plane(nats.start(supervisor), redis.start(supervisor), database.airflow_url, secret_file)
    apply_topology(supervisor, plane)
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
    execution_api.wait_ready(
        answers_http(f"{database.airflow_url}/execution/health"), timeout_seconds=120
    )
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

        def post(path, body, headers=headers, **more):
            return client.post(f"/v1/agents/{name}/{path}", json=body, headers=headers, **more)

        post.client, post.name, post.headers = client, name, headers
        return post

    yield register
    for client in clients:
        client.close()


def _tls(ca):
    import ssl

    return ssl.create_default_context(cafile=ca)


def _bearer(token):
    return {"Authorization": f"Bearer {token}"}


if str(TRIGGERS) not in sys.path:
    sys.path.append(str(TRIGGERS))
