"""What a running task's calls to Airflow look like on both sides of the gateway."""

import asyncio
import ssl
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from jetbridge.bus.nudges import on_nudge
from jetbridge.contracts.ids import LeaseKey

REFERENCE = (
    b'{"jetbridge.xcom":1,"uri":"s3://site/d/r/t/-1/x.0f.json","bytes":12,'
    b'"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","encoding":"identity"}'
)


@pytest.fixture
async def task(agent, store, workload, auth):
    """A leased workload; returns its id, its lease and the headers of its calls."""
    new = workload()
    await store.submit(new)
    lease, token = await agent.lease()
    return new.workload_id, lease, auth(token)


async def test_the_request_goes_on_as_it_came_with_airflows_token(gateway, task, airflow, jwt_secret_file):
    workload_id, _, headers = task
    target = "/execution/xcoms/d/r/t/k%20%C3%A9?map_index=-1&x=a%2Fb"
    answer = await gateway.client.post(
        target,
        content=REFERENCE,
        headers=headers
        | {
            "Content-Type": "application/json",
            "Airflow-API-Version": "2026-04-06",
            "correlation-id": "c-1",
            "traceparent": "00-11111111111111111111111111111111-2222222222222222-01",
            "Cookie": "a=b",
            "X-Forwarded-For": "10.0.0.1",
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
        },
    )
    seen = airflow.seen[-1]
    assert answer.content == REFERENCE
    assert seen["target"] + "?" + seen["query"] == target
    assert seen["headers"]["airflow-api-version"] == "2026-04-06"
    assert seen["headers"]["correlation-id"] == "c-1"
    assert seen["headers"]["traceparent"].startswith("00-11111111111111111111111111111111-")
    assert not {"cookie", "x-forwarded-for", "x-hop"} & set(seen["headers"])
    assert urlsplit(airflow.url).netloc == seen["headers"]["host"]
    claims = jwt.decode(
        seen["headers"]["authorization"].removeprefix("Bearer "),
        jwt_secret_file.read_text().strip(),
        algorithms=["HS512"],
        audience="urn:airflow.apache.org:task",
    )
    assert (claims["sub"], claims["scope"]) == (workload_id, "execution")
    assert claims["exp"] - claims["iat"] == 600


async def test_airflows_tokens_and_cookies_do_not_come_back(gateway, task):
    answer = await gateway.client.get("/execution/xcoms/d/r/t/x", headers=task[2])
    assert answer.headers["x-kept"] == "yes"
    assert not {"refreshed-api-token", "set-cookie", "server"} & set(answer.headers)


async def test_airflows_answers_are_passed_on(gateway, task):
    for status in (204, 404, 409, 422, 500):
        answer = await gateway.client.put(
            f"/execution/task-instances/{task[0]}/heartbeat?status={status}",
            content=b'{"detail":"d"}',
            headers=task[2],
        )
        assert answer.status_code == status
        assert answer.content == (b"" if status == 204 else b'{"detail":"d"}')


async def test_the_schedulers_are_nudged_when_a_task_says_how_it_ended(gateway, task, bus, eventually):
    """Its lease goes on: its log is still to be kept, and what follows the task does not wait for that."""
    nudges = []
    await on_nudge(bus, lambda: nudges.append(1))
    await bus.client.flush()
    path = f"/execution/task-instances/{task[0]}"
    ended = {"state": "success", "end_date": "2026-01-01T00:00:00Z", "task_outlets": [], "outlet_events": []}

    async def said(what, status):
        answer = await gateway.client.patch(f"{path}/{what}?status={status}", json=ended, headers=task[2])
        assert answer.status_code == status

    await said("state", 409)  # Airflow did not take it
    await said("run", 200)
    await said("state", 204)
    await eventually(lambda: nudges)
    await bus.client.flush()
    assert nudges == [1]


async def test_every_method_and_empty_bodies(gateway, task, airflow):
    xcom, instance = "xcoms/d/r/t/x", f"task-instances/{task[0]}"
    for method, path in (
        ("GET", xcom),
        ("HEAD", xcom),
        ("POST", xcom),
        ("DELETE", xcom),
        ("PUT", f"{instance}/heartbeat"),
        ("PATCH", f"{instance}/run"),
    ):
        answer = await gateway.client.request(method, f"/execution/{path}", headers=task[2])
        assert answer.status_code == 200
        assert airflow.seen[-1]["method"] == method
    answer = await gateway.client.request("OPTIONS", "/execution/xcoms/d/r/t/x", headers=task[2])
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


async def test_bodies_stream_both_ways(gateway, task, airflow):
    async def parts():
        for _ in range(20):
            yield b"x" * 50_000

    target = f"/execution/task-instances/{task[0]}/skip-downstream"
    answer = await gateway.client.patch(target, content=parts(), headers=task[2])
    assert answer.content == b"x" * 1_000_000
    assert airflow.seen[-1]["headers"]["transfer-encoding"] == "chunked"
    plain = task[2] | {"Accept-Encoding": "identity"}  # Airflow would compress pieces only as a whole
    async with gateway.client.stream("GET", "/execution/xcoms/d/r/t/stream", headers=plain) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"first"  # while Airflow has not finished
        airflow.release.set()
        assert await anext(chunks) == b"second"


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(gateway, task):
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.client.get("/execution/xcoms/d/r/t/cut", headers=task[2])


async def test_a_lost_lease_is_answered_as_airflows_client_understands(
    gateway, task, store, airflow, eventually
):
    workload_id, lease, headers = task
    await store.remove(workload_id)
    # The mirror has it within milliseconds; until then its yes is believed.
    await eventually(lambda: gateway.gateway.holdings.seen(LeaseKey.parse(lease)) is None)
    answer = await gateway.client.put(
        f"/execution/task-instances/{workload_id}/heartbeat", json={}, headers=headers
    )
    assert answer.status_code == 410
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["detail"]["reason"] == "lease_lost"
    assert not airflow.seen
    assert lease.startswith(workload_id)


async def test_a_finished_lease_makes_no_more_calls(gateway, agent, task):
    _, lease, headers = task
    await agent.report(lease)
    assert (await gateway.client.get("/execution/xcoms/d/r/t/x", headers=headers)).status_code == 410


async def test_a_lease_is_good_on_every_gateway_at_once(start_gateway, agent, store, workload, auth):
    other = await start_gateway()
    for _ in range(5):  # each a race between the accept and the other gateway's mirror
        await store.submit(workload())
        _, token = await agent.lease()
        assert (await other.client.get("/execution/xcoms/d/r/t/x", headers=auth(token))).status_code == 200


async def test_bodies_are_limited(start_gateway, task, airflow, problem):
    gateway = await start_gateway(max_execution_body_bytes=2000)

    async def parts():
        for _ in range(5):
            yield b"x" * 1000

    declared = await gateway.client.post("/execution/xcoms/d/r/t/x", content=b"x" * 2001, headers=task[2])
    problem(declared, "too-large")
    chunked = await gateway.client.post("/execution/xcoms/d/r/t/x", content=parts(), headers=task[2])
    problem(chunked, "too-large")
    assert not any(len(seen["body"]) > 2000 for seen in airflow.seen)


async def test_airflow_away_is_a_5xx_and_its_return_is_noticed(start_gateway, task, problem):
    gateway = await start_gateway(airflow_url="http://127.0.0.1:9")
    answer = await gateway.client.get("/execution/xcoms/d/r/t/x", headers=task[2])
    problem(answer, "upstream")
    assert answer.headers["retry-after"]
    ready = await gateway.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "degraded"
    check = ready.json()["checks"]["airflow"]
    assert check == {"ok": False, "required": False, "detail": "ClientConnectorError"}


async def test_airflow_that_does_not_answer_in_time_is_a_5xx(start_gateway, task, problem):
    gateway = await start_gateway(airflow_response_seconds=0.3)
    problem(await gateway.client.get("/execution/xcoms/d/r/t/slow", headers=task[2]), "upstream")


async def test_airflow_works_on_a_few_calls_at_once_and_the_others_wait(
    start_gateway, task, airflow, eventually
):
    gateway = await start_gateway(airflow_calls_at_once=2)
    calls = [
        asyncio.create_task(gateway.client.get("/execution/xcoms/d/r/t/slow", headers=task[2]))
        for _ in range(5)
    ]
    await eventually(lambda: airflow.at_once == 2)
    airflow.release.set()
    assert [(await call).status_code for call in calls] == [200] * 5
    assert airflow.at_once == 5


async def test_a_call_whose_turn_does_not_come_in_time_is_a_5xx(start_gateway, task, airflow, problem):
    gateway = await start_gateway(airflow_calls_at_once=1, airflow_response_seconds=0.3)
    slow = "/execution/xcoms/d/r/t/slow"
    answers = await asyncio.gather(*(gateway.client.get(slow, headers=task[2]) for _ in range(3)))
    for answer in answers:
        problem(answer, "upstream")
    assert airflow.at_once < 3
    airflow.release.set()
    assert (await gateway.client.get(slow, headers=task[2])).status_code == 200


async def test_a_lease_lost_while_a_call_waits_for_its_turn_is_fenced(
    start_gateway, task, store, airflow, eventually
):
    workload_id, lease, headers = task
    gateway = await start_gateway(airflow_calls_at_once=1)
    slow = asyncio.create_task(gateway.client.get("/execution/xcoms/d/r/t/slow", headers=headers))
    await eventually(lambda: airflow.at_once == 1)
    target = f"/execution/task-instances/{workload_id}/heartbeat"
    waiting = asyncio.create_task(gateway.client.put(target, json={}, headers=headers))
    await eventually(lambda: len(gateway.gateway.proxy.airflow.turns._waiters or ()) == 1)
    await store.remove(workload_id)
    await eventually(lambda: gateway.gateway.holdings.seen(LeaseKey.parse(lease)) is None)
    airflow.release.set()
    assert (await slow).status_code == 200
    assert (await waiting).status_code == 410
    assert not airflow.seen


async def test_a_slow_body_takes_no_turn(start_gateway, task, airflow):
    gateway = await start_gateway(airflow_calls_at_once=1)
    more = asyncio.Event()

    async def body():
        yield b"x" * 100
        await more.wait()

    target = f"/execution/task-instances/{task[0]}/heartbeat"
    slow = asyncio.create_task(gateway.client.put(target, content=body(), headers=task[2]))
    answer = await gateway.client.get("/execution/xcoms/d/r/t/x", headers=task[2])
    assert (answer.status_code, slow.done()) == (200, False)
    more.set()
    assert (await slow).status_code == 200
    assert airflow.seen[-1]["body"] == b"x" * 100


ODD_TARGETS = [
    b"/execution/../v1/agents",
    b"/execution/%2e%2e/v1",
    b"/execution/a//b",
    b"/execution/",
    b"/execution/a%2fb",
    b"/execution/a%5cb",
    b"/execution/a\\b",
    b"/execution/%00",
    b"/execution/%252e%252e/x",
    b"/%65xecution/x",
    b"/execution/a?b=<",
]


async def test_odd_paths_are_refused(gateway, task, tls, airflow):
    for target in ODD_TARGETS:
        answer = await raw(gateway.url, tls, target, task[2]["Authorization"].encode())
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")), target
        assert b"application/problem+json" in answer
    assert not airflow.seen


async def test_an_absolute_target_is_refused(gateway, task, tls, airflow):
    target = airflow.url.encode() + b"/execution/xcoms/d/r/t/x"
    answer = await raw(gateway.url, tls, target, task[2]["Authorization"].encode())
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"origin-form" in answer
    assert not airflow.seen


async def raw(url: str, tls: ssl.SSLContext, target: bytes, authorization: bytes) -> bytes:
    """Send a request line that no well-behaved client would, and return the whole answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    writer.write(
        b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: " + authorization + b"\r\n\r\n"
    )
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer
