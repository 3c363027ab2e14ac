"""A plane of one process for worker tests: the fake gateway, and an Execution API that remembers calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import uvicorn

from jetbridge.agent.testing import FakeGateway
from jetbridge.devstack.ports import listening
from jetbridge.devstack.tls import Certificates, make_certificates

DAGS = Path(__file__).parent / "dags"
SECONDS = 60
RUN_CONTEXT = {
    "dag_run": {
        "dag_id": "probes",
        "run_id": "run",
        "logical_date": None,
        "data_interval_start": None,
        "data_interval_end": None,
        "run_after": "2025-01-01T00:00:00Z",
        "start_date": None,
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        "partition_key": None,
    },
    "max_tries": 0,
    "should_retry": False,
}


@dataclass(frozen=True)
class ApiCall:
    """One call of the Execution API."""

    method: str
    path: str
    token: str
    body: dict
    connection: int
    """The port it came from."""


@dataclass
class Plane:
    """``/v1`` is answered by the fake gateway, ``/execution`` by a few lines here."""

    gateway: FakeGateway = field(default_factory=FakeGateway)
    api_calls: list[ApiCall] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Task instances whose calls are answered with 410, as the gateway does when a lease is lost."""

    certificates: Certificates | None = None

    def __post_init__(self):
        self._listener = None
        self.port = 0

    @property
    def url(self):
        return f"{'https' if self.certificates else 'http'}://127.0.0.1:{self.port}"

    async def start(self):
        self._listener = listening(self.port)
        self.port = self._listener.getsockname()[1]
        tls = {}
        if self.certificates:
            tls = {"ssl_certfile": self.certificates.certificate, "ssl_keyfile": self.certificates.key}
        config = uvicorn.Config(self, log_config=None, lifespan="off", timeout_graceful_shutdown=0, **tls)
        self._server = Server(config)
        self._serving = asyncio.create_task(self._server.serve([self._listener]))
        await self.gateway.until(lambda: self._server.started)

    async def stop(self):
        self._server.should_exit = True
        self._server.force_exit = True
        await self._serving
        self._listener.close()

    async def __call__(self, scope, receive, send):
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        bearer = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        if scope["path"].startswith("/execution/"):
            status, answer = self._execution_api(scope, bearer, body)
        else:
            status, answer = await self.gateway.answer(scope["path"], bearer, body)
        content_type = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": content_type})
        await send({"type": "http.response.body", "body": answer})

    def _execution_api(self, scope, bearer, body):
        method, path = scope["method"], scope["path"].removeprefix("/execution/")
        said = json.loads(body) if body else {}
        self.api_calls.append(ApiCall(method, path, bearer, said, scope["client"][1]))
        if any(ti_id in path for ti_id in self.lost):
            return 410, b'{"detail": {"reason": "lease_lost", "message": "not yours"}}'
        if path.endswith("/run"):
            return 200, json.dumps(RUN_CONTEXT).encode()
        if method == "GET":
            return 404, b'{"detail": {"reason": "not_found"}}'
        return (204, b"") if path.endswith(("/state", "/heartbeat")) else (201, b'{"message": "ok"}')

    def calls_of(self, ti_id, suffix=""):
        return [call for call in self.api_calls if ti_id in call.path and call.path.endswith(suffix)]

    def states_of(self, ti_id):
        return [call.body["state"] for call in self.calls_of(ti_id, "/state")]


class Server(uvicorn.Server):
    """Leaves signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


def task_spec(task_id):
    """Airflow's workload for one task of ``dags/probes.py``, as the executor sends it: without a token."""
    return {
        "type": "ExecuteTask",
        "dag_rel_path": "probes.py",
        "bundle_info": {"name": "probes", "version": None},
        "log_path": f"probes/{task_id}.log",
        "sentry_integration": "",
        "ti": {
            "id": str(uuid.uuid4()),
            "task_id": task_id,
            "dag_id": "probes",
            "run_id": "run",
            "try_number": 1,
            "dag_version_id": str(uuid.uuid4()),
            "map_index": -1,
            "pool_slots": 1,
            "priority_weight": 1,
            "queue": "default",
        },
    }


def callback_spec(path, **kwargs):
    """Airflow's workload for a callback."""
    return {
        "type": "ExecuteCallback",
        "dag_rel_path": "probes.py",
        "bundle_info": {"name": "probes", "version": None},
        "log_path": "callbacks/one.log",
        "callback": {
            "id": str(uuid.uuid4()),
            "fetch_method": "import_path",
            "data": {"path": path, "kwargs": kwargs},
        },
    }


@pytest.fixture(scope="session")
def specs():
    """The makers of workloads: ``specs.task(task_id)``, ``specs.callback(path, **kwargs)``."""

    class Specs:
        task = staticmethod(task_spec)
        callback = staticmethod(callback_spec)

    return Specs


def airflow_of_a_site(probe_dir):
    """What an operator would configure: where the Dags are, and here no object store."""
    bundle = {
        "name": "probes",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(DAGS)},
    }
    return {
        "PROBE_DIR": str(probe_dir),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.sdk.execution_time.xcom.BaseXCom",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "",
    }


@pytest.fixture(scope="session")
def site_env():
    """What an operator has in the environment of a worker: ``site_env(probe_dir)``."""
    return airflow_of_a_site


@pytest.fixture(scope="session")
def new_plane():
    """A context manager that serves a new :class:`Plane` in the running loop."""

    @contextlib.asynccontextmanager
    async def serving(certificates=None):
        plane = Plane(certificates=certificates)
        await plane.start()
        try:
            yield plane
        finally:
            await plane.stop()

    return serving


class WorkerProcess:
    """A worker that a test started, and what it can see of it."""

    def __init__(self, plane, probe_dir, log_file, argv, env):
        self.plane = plane
        self.gateway = plane.gateway
        self.probe_dir = probe_dir
        self.log_file = log_file
        self.argv = argv
        self.env = env

    async def start(self):
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        return self

    @property
    def log(self):
        return self.log_file.read_text()

    @property
    def outbox_dir(self):
        return self.probe_dir / "data" / "outbox"

    async def until(self, condition):
        def look():
            assert self.process.returncode is None, self.log
            return condition()

        await self.gateway.until(look, SECONDS)

    async def run(self, spec):
        """Offer a workload and wait until its task shows that it runs."""
        lease = await self.gateway.offer(spec)
        return lease, await self.shown({"lingers": "lingers"}.get(spec["ti"]["task_id"], "waiting"))

    async def shown(self, name):
        path = self.probe_dir / f"{name}.json"
        await self.until(path.exists)
        facts = json.loads(path.read_text())
        path.unlink()
        return facts

    def go_on(self):
        (self.probe_dir / "go on").touch()

    def tree(self):
        """The worker and all its descendants."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def fork_server(self):
        (child,) = psutil.Process(self.process.pid).children()
        return child

    async def gone(self, processes):
        await self.gateway.until(lambda: not any(map(alive, processes)), SECONDS)

    async def exit_code(self):
        return await asyncio.wait_for(self.process.wait(), SECONDS)


def alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
async def worker(new_plane, site_env, tmp_path):
    certificates = make_certificates(tmp_path / "tls", "127.0.0.1")
    async with new_plane(certificates) as plane:
        token_file = tmp_path / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(str(plane.gateway.token))
        argv = [sys.executable, "-m", "jetbridge.cli", "worker", "--gateway", plane.url]
        argv += [
            "--ca-file",
            str(certificates.ca),
            "--token-file",
            str(token_file),
            "--name",
            "a1",
            "--slots",
            "2",
        ]
        argv += ["--data-dir", str(tmp_path / "data"), "--stop-grace-seconds", "0.2"]
        env = {**os.environ, **site_env(tmp_path)}
        worker = WorkerProcess(plane, tmp_path, tmp_path / "worker.log", argv, env)
        yield await worker.start()
        if worker.process.returncode is None:
            worker.process.kill()
            await worker.process.wait()
