"""Every route has a limit of size and of time: a route that is new has to be added to the table here."""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from jetbridge.gateway.app import build_app

LEASE = "00000000-0000-0000-0000-000000000000.1"
ROUTES = {
    ("POST", "/v1/agents"): "token",
    ("POST", "/v1/agents/{name}/heartbeat"): "worker",
    ("POST", "/v1/agents/{name}/poll"): "worker",
    ("POST", "/v1/leases/{lease}/accept"): "worker",
    ("POST", "/v1/leases/{lease}/report"): "worker",
    ("POST", "/v1/agents/{name}/goodbye"): "worker",
    ("POST", "/v1/agents/{name}/deaths"): "sentinel",
    ("POST", "/v1/agents/{name}/site"): "sentinel",
    ("POST", "/v1/agents/{name}/bundles/claim"): "dag-processor",
    ("POST", "/v1/agents/{name}/bundles/declare"): "dag-processor",
    ("POST", "/v1/agents/{name}/bundles/state"): "dag-processor",
    ("POST", "/v1/agents/{name}/bundles/refreshed"): "dag-processor",
    ("POST", "/v1/agents/{name}/bundles/files"): "dag-processor",
    ("POST", "/v1/agents/{name}/bundles/parsed"): "dag-processor",
    ("POST", "/v1/agents/{name}/bundles/stale"): "dag-processor",
    ("POST", "/v1/agents/{name}/bundles/requests"): "dag-processor",
    ("POST", "/v1/agents/{name}/triggerer"): "triggerer",
    ("POST", "/v1/agents/{name}/triggerer/end"): "triggerer",
    ("POST", "/v1/agents/{name}/triggers/poll"): "triggerer",
    ("POST", "/v1/agents/{name}/triggers/events"): "triggerer",
    ("POST", "/execution/xcoms/d/r/t/k"): "lease",
}
"""Routes that read a body, by who may call them; of ``/execution`` one address stands for all."""

WITHOUT_BODY = {
    ("GET", "/v1/agents/{name}/airflow/{path:path}"),
    ("GET", "/v1/depth"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
    *((["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"][n], "/execution/{path:path}") for n in range(6)),
}
"""They read none, or pass it on within the limits of ``/execution``."""


def routes_of(app):
    inner = app._app
    return {(method, route.path) for route in inner.routes for method in route.methods}


def test_every_route_is_in_the_table(gateway):
    listed = {key for key in ROUTES if not key[1].startswith("/execution")}
    assert routes_of(build_app(gateway.gateway)) == listed | WITHOUT_BODY


@dataclass
class Patient:
    """A gateway of little patience, and who may call what."""

    url: str
    names: dict[str, str]
    tokens: dict[str, str]

    def head(self, method, path, *lines):
        role = ROUTES[method, path]
        name = self.names.get(role, "x")
        target = path.replace("{name}", name).replace("{lease}", LEASE)
        fixed = (f"{method} {target} HTTP/1.1", "Host: x", "Content-Type: application/json")
        return "\r\n".join((*fixed, f"Authorization: Bearer {self.tokens[role]}", *lines, "", "")).encode()


@pytest.fixture
async def patient(start_gateway, make_agent, store, workload):
    gateway = await start_gateway(read_seconds=0.5)
    names, tokens = {}, {}
    for role in ("worker", "dag-processor", "triggerer", "sentinel"):
        agent = await make_agent()
        await agent.register(role=role, site="here")
        names[role], tokens[role] = agent.name, agent.credential
        if role == "worker":
            await store.submit(workload())
            _, tokens["lease"] = await agent.lease()
            tokens["token"] = agent.token
    return Patient(gateway.url, names, tokens)


async def talk(url: str, tls: ssl.SSLContext, data: bytes) -> bytes:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()


async def test_more_than_the_limit_is_413_on_every_route(patient, tls, airflow):
    async def one(method, path):
        return await talk(patient.url, tls, patient.head(method, path, "Content-Length: 1073741824"))

    answers = await asyncio.gather(*(one(*key) for key in ROUTES))
    refused = {key: answer[:12] for key, answer in zip(ROUTES, answers, strict=True)}
    # The rest of the body never comes: what waits for it to discard it gives up, and says that.
    assert set(refused.values()) <= {b"HTTP/1.1 413", b"HTTP/1.1 400"}, refused
    assert not airflow.seen


async def test_a_body_that_does_not_come_is_given_up_on_every_route(patient, tls, airflow):
    async def one(method, path):
        return await talk(patient.url, tls, patient.head(method, path, "Content-Length: 100") + b"{")

    answers = await asyncio.gather(*(one(*key) for key in ROUTES))
    for key, answer in zip(ROUTES, answers, strict=True):
        assert answer.startswith(b"HTTP/1.1 400"), (key, answer)
        assert b"did not arrive in time" in answer, (key, answer)
    assert not [seen for seen in airflow.seen if seen["body"]]


async def test_endless_chunks_are_413_on_every_route(patient, tls):
    """Two MiB at once are more than any small route takes; the large ones have their own limits."""
    large = ("bundles/files", "bundles/parsed", "bundles/stale", "triggers/events", "/execution/")

    async def one(method, path):
        head = patient.head(method, path, "Transfer-Encoding: chunked", "Connection: close")
        return await talk(patient.url, tls, head + b"200000\r\n" + b" " * 0x200000 + b"\r\n0\r\n\r\n")

    small = [key for key in ROUTES if not any(part in key[1] for part in large)]
    for key in small:
        answer = await one(*key)
        assert answer == b"reset" or answer.startswith(b"HTTP/1.1 413"), (key, answer[:300])
