"""Malformed, oversized, unknown, hostile: a 4xx that says what to do, and nothing changes."""

import asyncio
import json
import ssl
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("contract", "name", "instance", "role", "queues", "slots", "free_slots", "leases", "outcome")


BODIES = JSON | st.dictionaries(st.sampled_from(FIELDS), JSON) | st.binary()


async def send(agent, path, body: bytes, **headers):
    return await agent.client.post(
        path,
        content=body,
        headers={
            "Authorization": f"Bearer {agent.credential}",
            "Content-Type": "application/json",
            **headers,
        },
    )


@pytest.fixture
def paths(agent):
    lease = "00000000-0000-0000-0000-000000000000.1"
    return {
        "poll": f"/v1/agents/{agent.name}/poll",
        "heartbeat": f"/v1/agents/{agent.name}/heartbeat",
        "report": f"/v1/leases/{lease}/report",
        "accept": f"/v1/leases/{lease}/accept",
    }


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"free_slots":-1}',
    b'{"free_slots":1e99}',
    b'{"free_slots":1,"unknown":1}',
    b'{"free_slots":1,"leases":["x"]}',
    b'{"free_slots":1,"leases":["../../x.1"]}',
    b'{"free_slots":1}{"free_slots":1}',
    b'{"free_slots":1,"leases":["\xff"]}',
    b"[" * 100_000,
    b'{"free_slots":' + b"[" * 100_000,
    '{"free_slots":1}'.encode("utf-16"),
]


async def test_malformed_bodies(agent, paths, problem):
    for body in MALFORMED:
        for name in ("poll", "heartbeat"):
            document = problem(await send(agent, paths[name], body), "malformed")
            assert document["detail"]


async def test_random_bodies_never_break_anything(agent, paths):
    cases = []

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(paths)), BODIES)
    def collect(name, body):
        cases.append((name, body if isinstance(body, bytes) else json.dumps(body).encode()))

    collect()
    for name, body in cases:
        if name == "poll" and b"free_slots" in body:
            continue  # may be a valid poll, which would be held
        answer = await send(agent, paths[name], body)
        assert answer.status_code in (200, 400, 410, 422), (name, body, answer.text)
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json"
    assert (await agent.heartbeat()).status_code == 200


async def test_an_unknown_contract_says_what_to_upgrade(agent, paths, problem):
    for body in ({"free_slots": 1, "contract": 2}, {"contract": 2, "shape": ["of", "tomorrow"]}):
        document = problem(await send(agent, paths["poll"], json.dumps(body).encode()), "unknown-contract")
        assert "Upgrade the gateway" in document["detail"]


async def test_oversized_bodies(agent, paths, problem):
    problem(await send(agent, paths["report"], b" " * 20_000), "too-large")
    problem(await send(agent, paths["poll"], b" " * (2 << 20)), "too-large")

    async def parts():
        for _ in range(30):
            yield b" " * 1000

    answer = await agent.client.post(
        paths["report"],
        content=parts(),
        headers={"Authorization": f"Bearer {agent.credential}", "Content-Type": "application/json"},
    )
    problem(answer, "too-large")


async def test_only_json_in_utf_8(agent, paths, problem):
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
    ):
        problem(await send(agent, paths["poll"], b'{"free_slots":0}', **headers), "unsupported-media-type")
    answer = await send(
        agent,
        paths["heartbeat"],
        b'{"free_slots":0}',
        **{"Content-Type": "application/json; charset=UTF-8"},
    )
    assert answer.status_code == 200


async def test_a_query_string_is_refused_and_not_repeated(agent, paths, problem):
    answer = await send(agent, paths["heartbeat"] + "?token=jb_secret", b'{"free_slots":0}')
    problem(answer, "malformed")
    assert "jb_secret" not in answer.text


async def test_unknown_places_and_methods(gateway, problem):
    for path in ("/", "/v2/agents", "/v1/agents/", "/v1//agents", "/docs", "/v1/leases/x"):
        problem(await gateway.client.get(path), "not-found")
    answer = await gateway.client.get("/v1/agents")
    problem(answer, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


async def test_agent_names_that_are_no_names(make_agent, problem):
    agent = await make_agent()
    for name in ["", "-a", "A", "a.b", "a\n", "a/b", "a" * 64, "é", "*", ">"]:
        agent.name = name
        problem(await agent.register(), "malformed")


async def test_lease_ids_that_are_no_leases(agent, problem):
    for lease in ("x", "00000000-0000-0000-0000-000000000000.0", "00000000-0000-0000-0000-000000000000"):
        problem(await agent.accept(lease), "not-found")
    problem(await agent.accept("00000000-0000-0000-0000-000000000000.1%0A"), "not-found")
    problem(await agent.accept("00000000-0000-0000-0000-000000000000.1"), "lease-lost")


async def test_a_head_without_end_is_cut_off(gateway, tls):
    answer = await talk(gateway.url, tls, b"GET / HTTP/1.1\r\n" + b"X-Y: " + b"z" * 100_000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer
    answer = await talk(gateway.url, tls, b"GET / HTTP/1.1\r\n" + b"X-Y: z\r\n" * 10_000)
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_slow_head_is_cut_off(start_gateway, tls):
    gateway = await start_gateway(read_seconds=0.3)
    assert await talk(gateway.url, tls, b"GET / HTTP/1.1\r\nHo") == b""
    assert await talk(gateway.url, tls, b"") == b""


async def test_a_slow_body_is_cut_off(start_gateway, make_agent, tls):
    gateway = await start_gateway(read_seconds=0.3)
    agent = await make_agent()
    await agent.register()
    head = (
        f"POST /v1/agents/{agent.name}/poll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {agent.credential}\r\n\r\n"
    )
    answer = await talk(gateway.url, tls, head.encode() + b"{")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive in time" in answer


NO_HTTP = [
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"\x00" * 100 + b"\r\n\r\n",
]


async def test_no_http_is_a_problem_document_too(gateway, tls):
    for request in NO_HTTP:
        answer = await talk(gateway.url, tls, request)
        assert answer.startswith(b"HTTP/1.1 400"), request
        assert b"application/problem+json" in answer


async def test_refusals_are_counted(gateway, agent, paths):
    await send(agent, paths["poll"], b"{")
    metrics = (await gateway.client.get("/metrics")).text
    assert 'jetbridge_gateway_refused_requests_total{problem="malformed"} 1.0' in metrics


async def test_an_unexpected_error_tells_only_where_to_look(gateway, agent, problem, monkeypatch, capsys):
    async def broken(*_):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(type(gateway.gateway.polls), "hold", broken)
    document = problem(await agent.poll(), "internal")
    assert "secret inside" not in json.dumps(document)
    log = capsys.readouterr().out
    assert "secret inside" in log
    assert document["instance"] in log


async def talk(url: str, tls: ssl.SSLContext, data: bytes) -> bytes:
    """Send bytes as they are and return everything that comes back until the other side closes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
