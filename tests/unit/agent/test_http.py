"""Requests over real sockets: what goes out, what comes back, and what counts as no answer."""

from __future__ import annotations

import asyncio
import re
import ssl

import pytest

from jetbridge.agent.http import HttpClient, Limits, NoAnswerError
from jetbridge.devstack.tls import make_certificates

WITHIN = Limits(connect_seconds=5, answer_seconds=5)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers each request with the next of ``answers``; None closes the connection instead."""

    def __init__(self):
        self.answers = []
        self.requests = []
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head.lower())
                self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                if (answer := self.answers.pop(0)) is None:
                    return
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture
def server():
    return Server()


@pytest.fixture
async def url(server):
    listener = await asyncio.start_server(server.serve, "127.0.0.1")
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


@pytest.fixture
async def client(url):
    client = HttpClient(url)
    yield client
    await client.close()


def send(client, url, path="/v1/x", within=WITHIN):
    return client.send(
        "POST", url + path, {"authorization": "Bearer b", "content-type": "a/b"}, b"{1}", within
    )


async def test_a_request_goes_out_as_it_is(client, server, url):
    server.answers = [OK]
    answer = await send(client, url, "/execution/variables/a%2Fb%20c?x=%2F")
    assert (answer.status, answer.body, answer.content_type) == (200, b"{}", "application/json")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /execution/variables/a%2Fb%20c?x=%2F HTTP/1.1\r\n")
    assert body == b"{1}"
    lines = head.decode().lower().split("\r\n")
    assert {"authorization: bearer b", "content-type: a/b"} <= set(lines)


async def test_a_request_without_a_body(client, server, url):
    server.answers = [OK]
    assert (await client.send("GET", f"{url}/v1/x?a=%2F", {"x-y": "z"}, b"", WITHIN)).status == 200
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"GET /v1/x?a=%2F HTTP/1.1\r\n")
    assert b"x-y: z" in head.lower()
    assert not body
    assert b"content-type" not in head.lower()


async def test_connections_are_used_again(client, server, url):
    server.answers = [OK] * 3
    for _ in range(3):
        await send(client, url)
    assert server.connections == 1


async def test_a_redirect_is_an_answer_and_takes_no_credential_along(client, server, url):
    server.answers = [b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"]
    assert (await send(client, url)).status == 302
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [None, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome", b"no HTTP at all\r\n\r\n"],
    ids=["closed", "half of it", "something else"],
)
async def test_what_is_no_answer(client, server, url, answer):
    server.answers = [answer, None]
    with pytest.raises(NoAnswerError):
        await send(client, url, within=Limits(connect_seconds=5, answer_seconds=0.2))


async def test_nobody_listens(client):
    with pytest.raises(NoAnswerError, match=r"127\.0\.0\.1:1"):
        await send(client, "http://127.0.0.1:1")


async def test_a_server_that_is_not_trusted_is_named_with_the_reason(server, tmp_path):
    certificates = make_certificates(tmp_path, "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", ssl=context)
    async with listener:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        stranger, friend = (
            HttpClient(url),
            HttpClient(url, ssl.create_default_context(cafile=certificates.ca)),
        )
        with pytest.raises(NoAnswerError, match="CERTIFICATE_VERIFY_FAILED"):
            await send(stranger, url)
        server.answers = [OK]
        assert (await send(friend, url)).status == 200
        await stranger.close()
        await friend.close()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Leave out those of whoever runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
@pytest.mark.parametrize("excepted", ["", "elsewhere.test"])
async def test_a_proxy_is_taken_from_the_environment(server, url, monkeypatch, variable, scheme, excepted):
    monkeypatch.setenv(variable, scheme + url.removeprefix("http://"))
    monkeypatch.setenv("NO_PROXY", excepted)
    server.answers = [OK]
    client = HttpClient("http://gateway.test")
    assert (await send(client, "http://gateway.test")).status == 200
    assert server.requests[0].startswith(b"POST http://gateway.test/v1/x HTTP/1.1\r\n")
    await client.close()


async def test_a_proxy_of_another_kind_is_named_as_the_reason(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "socks5://me:hunter2@127.0.0.1:1")
    client = HttpClient("http://gateway.test")
    with pytest.raises(NoAnswerError, match="socks5") as raised:
        await send(client, "http://gateway.test")
    assert "hunter2" not in str(raised.value)
    await client.close()


@pytest.mark.parametrize("excepted", ["127.0.0.1", "127.0.0.1:{}", "*"])
async def test_a_gateway_that_is_excepted_from_the_proxy_is_asked_itself(server, url, monkeypatch, excepted):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", excepted.format(url.rpartition(":")[2]))
    server.answers = [OK]
    client = HttpClient(url)
    assert (await send(client, url)).status == 200
    await client.close()
