"""
Requests that two servers might read differently, byte for byte over TLS: one line each.

Whatever the gateway makes of one, Airflow sees at most what the rules allow: never the task instance that a
request tries to reach by a trick, and never a second request hidden in the first.
"""

import asyncio
import re
import socket
import ssl
from urllib.parse import urlsplit

import pytest

VICTIM = "0198a0e0-0000-7000-8000-00000000beef"
HIDDEN = b"GET /execution/variables/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def task(agent, store, workload):
    new = workload()
    await store.submit(new)
    _, token = await agent.lease()
    return new.workload_id, token


@pytest.fixture
async def hasty(start_gateway):
    """A gateway that does not wait long for what never comes."""
    return await start_gateway(read_seconds=1.0)


@pytest.fixture
def talk(hasty, tls):
    """Send bytes; returns all that comes back until the gateway closes."""

    async def talk(data: bytes) -> bytes:
        parts = urlsplit(hasty.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 30)
        except ConnectionResetError:
            return b"reset"
        finally:
            writer.close()

    return talk


REFUSALS = (b"HTTP/1.1 400 ", b"HTTP/1.1 403 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")
TARGETS = [
    "/execution/../v1/agents",
    "/execution/./xcoms/d/r/t/k",
    "/execution/%2e%2e/execution/task-instances/{victim}/run",
    "/execution/%2E%2E/v1/agents",
    "/execution/.%2e/v1/agents",
    "/execution/%252e%252e/v1/agents",
    "/execution/task-instances/{own}/../{victim}/run",
    "/execution/task-instances/{own}%2f..%2f{victim}/run",
    "/execution/task-instances/{own}%2F{victim}/run",
    "/execution/task-instances/{victim}%2Frun",
    "/execution/task-instances/{victim}/run%00",
    "/execution/task-instances/{victim}/run%0a",
    "/execution/task-instances/{victim}/run%20",
    "/execution/task-instances/{victim};x=1/run",
    "/execution/task-instances/%30198a0e0-0000-7000-8000-00000000beef/run",
    "/execution/task-instances//{victim}/run",
    "/execution//task-instances/{victim}/run",
    "//execution/task-instances/{victim}/run",
    "/execution/task-instances/{victim}/run/",
    "/EXECUTION/task-instances/{victim}/run",
    "/Execution/task-instances/{victim}/run",
    "/execution/Task-Instances/{victim}/run",
    "/execution/task-instances/{VICTIM}/run",
    "/%65xecution/task-instances/{victim}/run",
    "/execution%2ftask-instances%2f{victim}%2frun",
    "/execution\\task-instances\\{victim}\\run",
    "/execution/task-instances\\..\\{victim}/run",
    "/execution/task-instances/%5c..%5c{victim}/run",
    "/execution/task-instances/{victim}/run?task_instance_id={own}",
    "/execution/task-instances/{victim}/run#/{own}",
    "/execution/task-instances/{own}%3f/{victim}/run",
    "/execution/task-instances/{own}%23/../{victim}/run",
    "/execution/xcoms/e/r/t/k?dag_id=d",
    "/execution/xcoms/d%2f..%2fe/r/t/k",
    "/execution/xcoms/%2e/r/t/k",
    "/execution/xcoms/d/r/t/\u0001",
    "/execution/xcoms/d/r/t/\u00ff",
    "/execution/task-instances/count?dag_id=d&dag_id=e&x=%zz",
    "/execution/xcoms/d/r/t/k?a=<",
    "/execution",
    "/execution/",
    "/execution/%",
    "https://airflow/execution/task-instances/{victim}/run",
    "http://127.0.0.1/execution/xcoms/d/r/t/k",
    "airflow:8080",
    "*",
    "execution/xcoms/d/r/t/k",
    "/v1/agents/../../execution/xcoms/d/r/t/k",
    "/v1/agents/x/airflow/../../../../execution/variables/x",
]


async def test_a_target_that_could_be_read_in_two_ways(talk, task, airflow):
    own, token = task
    rest = f"HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    for target in TARGETS:
        path = target.format(own=own, victim=VICTIM, VICTIM=VICTIM.upper())
        answer = await talk(f"PATCH {path} {rest}".encode("latin-1"))
        assert answer.startswith(REFUSALS), (target, answer)
        assert b"application/problem+json" in answer, target
        assert not airflow.seen, target


FRAMINGS = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "both lengths, other order": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 60\r\n",
    "two equal lengths": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "a list of lengths": b"Content-Length: 5, 60\r\n",
    "a signed length": b"Content-Length: +5\r\n",
    "a negative length": b"Content-Length: -5\r\n",
    "a length in hex": b"Content-Length: 0x5\r\n",
    "a length with a space inside": b"Content-Length: 5 0\r\n",
    "a length that overflows": b"Content-Length: 18446744073709551621\r\n",
    "no length": b"Content-Length: \r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "chunked is not last": b"Transfer-Encoding: chunked, identity\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked twice in one": b"Transfer-Encoding: chunked, chunked\r\n",
    "a coding with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n",
    "a length with a space before the colon": b"Content-Length : 5\r\n",
    "a folded header": b"X-A: b\r\n Transfer-Encoding: chunked\r\n",
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n",
    "a bare carriage return": b"X-A: b\rTransfer-Encoding: chunked\r\n",
    "a NUL in a header": b"X-A: b\x00c\r\n",
    "a header without a colon": b"Transfer-Encoding chunked\r\n",
    "a header without a name": b": chunked\r\n",
}
"""Header lines; the body below is complete under none of the readings that a lenient server might take."""


async def test_a_body_whose_end_is_ambiguous(talk, task, airflow):
    """Refused as a whole: nothing reaches Airflow, and the hidden request is never served."""
    head = (
        f"POST /execution/xcoms/d/r/t/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {task[1]}\r\n"
    ).encode()

    async def one(name):
        return name, await talk(head + FRAMINGS[name] + b"\r\n" + b"0\r\n\r\n" + HIDDEN)

    for name, answer in await asyncio.gather(*map(one, FRAMINGS)):
        assert answer == b"reset" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")), (name, answer)
        assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) <= 1, (name, "a second request was read")
    assert not airflow.seen


CHUNKS = {
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size in 0x form": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size that overflows": b"FFFFFFFFFFFFFFFF1\r\nhello\r\n0\r\n\r\n",
    "a size of nothing": b"\r\nhello\r\n0\r\n\r\n",
    "a size with a space": b"5 \nhello\r\n0\r\n\r\n",
    "more than the size": b"5\r\nhello, you\r\n0\r\n\r\n",
    "bare line feeds": b"5\nhello\n0\n\n",
}


async def test_chunks_that_are_none(talk, task, airflow):
    head = (
        f"POST /execution/xcoms/d/r/t/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {task[1]}\r\n"
        "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()

    async def one(name):
        return name, await talk(head + CHUNKS[name] + HIDDEN)

    for name, answer in await asyncio.gather(*map(one, CHUNKS)):
        assert b"HTTP/1.1 200 " not in answer, (name, answer)
    assert not [seen for seen in airflow.seen if seen["body"] or "smuggled" in seen["target"]]


HEADS = {
    "one huge header": b"X-A: " + b"a" * 200_000 + b"\r\n",
    "a huge credential": b"Authorization: Bearer " + b"a" * 200_000 + b"\r\n",
    "a huge header name": b"X" * 200_000 + b": a\r\n",
    "very many headers": b"X-A: a\r\n" * 20_000,
    "a huge cookie": b"Cookie: " + b"a=b; " * 40_000 + b"\r\n",
}


async def test_a_head_that_is_too_large(talk, airflow):
    for name, lines in HEADS.items():
        answer = await talk(b"GET /execution/xcoms/d/r/t/k HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
        assert answer == b"reset" or answer.startswith(b"HTTP/1.1 413 "), (name, answer[:200])
    assert not airflow.seen


async def test_a_target_that_is_too_long(talk, airflow):
    answer = await talk(b"GET /execution/xcoms/d/r/t/" + b"k" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer == b"reset" or answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert not airflow.seen


async def test_a_long_credential_within_the_limit_is_just_wrong(talk):
    line = b"Authorization: Bearer " + b"a" * 20_000 + b"\r\n"
    answer = await talk(
        b"GET /execution/xcoms/d/r/t/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + line + b"\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_another_protocol_is_not_switched_to(talk, task, airflow):
    for line in (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
    ):
        head = f"GET /execution/xcoms/d/r/t/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {task[1]}\r\n"
        answer = await talk(head.encode() + line + b"Connection: close\r\n\r\n")
        assert not answer.startswith(b"HTTP/1.1 101")
    assert not [seen for seen in airflow.seen if "upgrade" in seen["headers"]]


async def test_a_client_that_does_not_read_is_cut_off(start_gateway, task, airflow, tls):
    """It holds no memory and no connection to Airflow for longer than an answer may take."""
    gateway = await start_gateway(airflow_response_seconds=1.0)
    parts = urlsplit(gateway.url)
    request = (
        f"GET /execution/xcoms/d/r/t/endless HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {task[1]}\r\n\r\n"
    )

    def connect():
        plain = socket.create_connection((parts.hostname, parts.port), timeout=30)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        secured = ssl.SSLContext.wrap_socket(tls, plain, server_hostname=parts.hostname)
        secured.sendall(request.encode())
        return secured

    connection = await asyncio.to_thread(connect)
    try:
        async with asyncio.timeout(30):
            await airflow.abandoned.wait()
        assert (await gateway.client.get("/healthz")).status_code == 200
    finally:
        connection.close()
