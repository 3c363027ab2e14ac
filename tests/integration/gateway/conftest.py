"""Gateways over TLS on the session's NATS and Redis, agents that speak the real protocol, a small Airflow."""

import asyncio
import secrets
import ssl
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse

from jetbridge.bus.apply import apply
from jetbridge.bus.connection import open_bus
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tokens import TokenStore
from jetbridge.bus.workloads import NewWorkload, WorkloadStore
from jetbridge.contracts.assets import OwnAssets
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.scopes import TokenScopes
from jetbridge.devstack.ports import listening
from jetbridge.devstack.tls import make_certificates
from jetbridge.gateway.gateway import open_gateway
from jetbridge.gateway.server import bind, run
from jetbridge.gateway.settings import GatewaySettings

AIRFLOW_SECRET = secrets.token_urlsafe(64)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"), "127.0.0.1", "localhost")


@pytest.fixture(scope="session")
def jwt_secret_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("airflow") / "jwt_secret"
    path.write_text(AIRFLOW_SECRET + "\n")
    return path


@pytest.fixture
async def bus(nats_url):
    async with open_bus(BusSettings(url=nats_url), "tests") as bus:
        await apply(bus, 1)
        yield bus


@pytest.fixture
async def store(bus):
    return await WorkloadStore.open(bus)


@pytest.fixture
async def tokens(bus):
    return await TokenStore.open(bus)


@pytest.fixture
def queue():
    return f"q-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def workload(queue):
    def make(priority_weight: int = 1, of_queue: str = queue) -> NewWorkload:
        return NewWorkload(
            workload_id=str(uuid.uuid4()),
            kind=WorkloadKind.TASK,
            queue=of_queue,
            priority_weight=priority_weight,
            coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
            spec=b'{"type":"ExecuteTask"}',
        )

    return make


@dataclass
class Airflow:
    """What a test may ask of the small Execution API: where it is, what it saw, and to go away."""

    url: str = ""
    seen: list[dict] = field(default_factory=list)
    at_once: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def airflow():
    async with _airflow(listening()) as airflow:
        yield airflow


@asynccontextmanager
async def _airflow(listener):
    airflow = Airflow(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=1024)  # as Airflow's api-server does

    @app.get("/execution/health")
    async def health() -> Response:
        return JSONResponse({"status": "healthy"})

    @app.get("/execution/xcoms/d/r/t/slow")
    async def slow() -> Response:
        airflow.at_once += 1
        await airflow.release.wait()
        return JSONResponse({})

    @app.get("/execution/xcoms/d/r/t/stream")
    async def stream() -> Response:
        async def parts():
            yield b"first"
            await airflow.release.wait()
            yield b"second"

        return StreamingResponse(parts())

    @app.get("/execution/xcoms/d/r/t/cut")
    async def cut() -> Response:
        async def parts():
            yield b"some"
            raise asyncio.CancelledError

        return StreamingResponse(parts(), headers={"content-length": "1000"})

    _add_endless(app, airflow)

    @app.api_route("/execution/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    async def anything(request: Request) -> Response:
        body = await request.body()
        airflow.seen.append(
            {
                "method": request.method,
                "target": request.scope["raw_path"].decode(),
                "query": request.scope["query_string"].decode(),
                "headers": dict(request.headers),
                "body": body,
            }
        )
        headers = {"Refreshed-API-Token": "airflow-secret", "Set-Cookie": "a=b", "X-Kept": "yes"}
        status = int(request.query_params.get("status", "200"))
        return Response(b"" if status == 204 else body or b"{}", status_code=status, headers=headers)

    async with serving(app, listener):
        yield airflow


def _add_endless(app, airflow):
    @app.get("/execution/xcoms/d/r/t/endless")
    async def endless() -> Response:
        async def parts():
            try:
                while True:
                    yield b"x" * 65_536
                    await asyncio.sleep(0)  # uvicorn takes all without waiting once the client is gone
            finally:
                airflow.abandoned.set()

        return StreamingResponse(parts())


@asynccontextmanager
async def serving(app, listener):
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield server
    finally:
        server.should_exit = True
        await task


class _no_signals:  # noqa: N801 - stands in for a context manager method
    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


@dataclass
class Running:
    """A gateway that serves."""

    gateway: object
    url: str
    client: httpx.AsyncClient
    stop: asyncio.Event
    task: asyncio.Task


@pytest.fixture
def tls(certificates):
    return ssl.create_default_context(cafile=certificates.ca)


@pytest.fixture
async def start_gateway(bus, nats_url, redis_url, airflow, certificates, jwt_secret_file, tls):
    """Start a gateway; keyword arguments are settings that differ from the tests' own."""
    assert bus.client.is_connected  # its topology is applied, as before any service
    async with AsyncExitStack() as stack:

        async def start(**changes) -> Running:
            settings = GatewaySettings(
                **{
                    "host": "127.0.0.1",
                    "port": 0,
                    "tls_cert_file": certificates.certificate,
                    "tls_key_file": certificates.key,
                    "redis_url": redis_url,
                    "airflow_url": airflow.url,
                    "airflow_jwt_secret_file": jwt_secret_file,
                    "drain_notice_seconds": 0,
                    "drain_seconds": 5,
                    # All tests come from one address and share one Redis.
                    "failed_logins_per_minute": 1_000_000,
                    "registrations_per_minute": 1_000_000,
                    **changes,
                }
            )
            return await stack.enter_async_context(_running(settings, nats_url, tls))

        yield start


@asynccontextmanager
async def _running(settings, nats_url, tls):
    stop = asyncio.Event()
    async with open_gateway(settings, BusSettings(url=nats_url), stop.set) as gateway:
        listener = bind(settings)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        task = asyncio.create_task(run(gateway, listener, stop))
        async with httpx.AsyncClient(base_url=url, verify=tls, timeout=60) as client:
            yield Running(gateway, url, client, stop, task)
        stop.set()
        await task


@pytest.fixture
async def gateway(start_gateway):
    return await start_gateway()


@dataclass
class Agent:
    """An agent of a test: what it knows and the calls it makes."""

    client: httpx.AsyncClient
    token: str
    name: str
    queues: tuple[str, ...]
    slots: int = 4
    instance: str = field(default_factory=lambda: secrets.token_hex(16))
    credential: str = ""

    async def register(self, **changes) -> httpx.Response:
        body = {
            "name": self.name,
            "instance": self.instance,
            "role": "worker",
            "queues": self.queues,
            "slots": self.slots,
            **changes,
        }
        answer = await self.client.post("/v1/agents", json=body, headers=bearer(self.token))
        if answer.status_code == 200:
            self.credential = answer.json()["credential"]
        return answer

    async def post(self, path: str, body: dict, client: httpx.AsyncClient | None = None) -> httpx.Response:
        return await (client or self.client).post(path, json=body, headers=bearer(self.credential))

    async def poll(self, client=None, **body) -> httpx.Response:
        body = {"free_slots": self.slots, "wait_seconds": 30, **body}
        return await self.post(f"/v1/agents/{self.name}/poll", body, client)

    async def heartbeat(self, client=None, **body) -> httpx.Response:
        return await self.post(
            f"/v1/agents/{self.name}/heartbeat", {"free_slots": self.slots, **body}, client
        )

    async def accept(self, lease: str, client=None) -> httpx.Response:
        return await self.post(f"/v1/leases/{lease}/accept", {}, client)

    async def report(self, lease: str, client=None, **body) -> httpx.Response:
        return await self.post(f"/v1/leases/{lease}/report", {"outcome": "succeeded", **body}, client)

    async def lease(self) -> tuple[str, str]:
        """Take one offer; returns the lease and its token."""
        (offer,) = (await self.poll()).json()["offers"]
        answer = await self.accept(offer["lease"])
        assert answer.status_code == 200, answer.text
        return offer["lease"], answer.json()["token"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def agent(gateway, tokens, queue):
    """A registered agent of the default gateway."""
    agent = await new_agent(gateway.client, tokens, queue)
    assert (await agent.register()).status_code == 200
    return agent


async def new_agent(
    client, tokens, *queues, life=timedelta(hours=1), scopes=None, certificate="", **changes
) -> Agent:
    token, _ = await tokens.create("test", life, TokenScopes(**scopes or {}), certificate)
    return Agent(client, str(token), f"agent-{uuid.uuid4().hex[:8]}", queues, **changes)


@pytest.fixture
def make_agent(gateway, tokens, queue):
    async def make(*queues, **changes) -> Agent:
        return await new_agent(gateway.client, tokens, *(queues or (queue,)), **changes)

    return make


@pytest.fixture
def agent_of():
    """Make an agent of a gateway that is a process of its own."""
    return Agent


@pytest.fixture
def auth():
    return bearer


@pytest.fixture
def eventually():
    """Await until ``condition()`` (plain or async) is true."""

    async def wait(condition, seconds: float = 20.0):
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def problem():
    """Assert that an answer is a problem document of a kind, and return it."""

    def check(answer: httpx.Response, slug: str) -> dict:
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        document = answer.json()
        assert document["type"] == f"urn:jetbridge:problem:{slug}"
        assert document["status"] == answer.status_code
        assert document["title"]
        return document

    return check


@pytest.fixture
def events_of(bus):
    """Return the types of the events kept about a lease, in order."""

    async def read(lease: LeaseKey | str) -> list[str]:
        lease = LeaseKey.parse(str(lease))
        found = []
        subscription = await bus.js.subscribe("event.workload.*", ordered_consumer=True)
        try:
            while True:
                message = await subscription.next_msg(timeout=0.5)
                mine = lease.workload_id.encode() in message.data
                if mine and f'"epoch":{lease.epoch}'.encode() in message.data:
                    found.append(message.subject.removeprefix("event."))
        except TimeoutError:
            return found
        finally:
            await subscription.unsubscribe()

    return read


@pytest.fixture
def own_assets(gateway, monkeypatch):
    """Say which assets are everybody's own; there is no bridge here that knows."""

    def say(**own):
        async def answer(*_asked):
            return OwnAssets(**own)

        monkeypatch.setattr(gateway.gateway.proxy.assets, "own", answer)

    return say
