"""The commands as people and service managers run them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import redis.asyncio as redis

from jetbridge.contracts.presence import GATEWAYS_KEY
from jetbridge.devstack.ports import free_port

JETBRIDGE = Path(sys.executable).parent / "jetbridge"
TOKEN = re.compile(r"jb_[0-9a-z]{12}_[\w-]{43}")


@pytest.fixture
def environment(nats_url, redis_url, airflow, certificates, jwt_secret_file):
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "JETBRIDGE_NATS_URL": nats_url,
        "JETBRIDGE_REDIS_URL": redis_url,
        "JETBRIDGE_GATEWAY_HOST": "127.0.0.1",
        "JETBRIDGE_GATEWAY_TLS_CERT_FILE": str(certificates.certificate),
        "JETBRIDGE_GATEWAY_TLS_KEY_FILE": str(certificates.key),
        "JETBRIDGE_GATEWAY_AIRFLOW_URL": airflow.url,
        "JETBRIDGE_GATEWAY_AIRFLOW_JWT_SECRET_FILE": str(jwt_secret_file),
        "JETBRIDGE_GATEWAY_REUSE_PORT": "true",
    }


@asynccontextmanager
async def process(environment, *arguments):
    """Run ``jetbridge gateway`` and kill what is left of it."""
    started = await asyncio.create_subprocess_exec(
        JETBRIDGE, "gateway", *arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def listening(started) -> list[bytes]:
    """Wait for the line that says so, and return all lines up to it."""
    lines = []
    async with asyncio.timeout(30):
        while line := await started.stderr.readline():
            lines.append(line)
            if b"gateway.listening" in line:
                return lines
    raise AssertionError(b"".join(lines).decode())


@pytest.mark.usefixtures("bus")
async def test_two_processes_share_one_address_and_sigterm_drains(
    environment, tokens, tls, queue, redis_url, eventually
):
    port = free_port()
    token, _ = await tokens.create("test")
    address = ("--port", str(port))
    async with process(environment, *address) as one, process(environment, *address) as two:
        await asyncio.gather(listening(one), listening(two))
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=tls, timeout=30) as client:
            body = {"name": "agent-p", "instance": "0" * 32, "role": "worker", "queues": [queue]}
            registered = await client.post(
                "/v1/agents", json=body, headers={"Authorization": f"Bearer {token}"}
            )
            credential = {"Authorization": f"Bearer {registered.json()['credential']}"}
            poll = asyncio.create_task(
                client.post("/v1/agents/agent-p/poll", json={"free_slots": 0}, headers=credential)
            )
            async with redis.Redis.from_url(redis_url, decode_responses=True) as store:

                async def members():
                    found = await store.zrange(GATEWAYS_KEY, 0, -1)
                    return {pid for pid in (one.pid, two.pid) if any(f"/{pid}/" in name for name in found)}

                async def both():
                    return len(await members()) == 2

                await eventually(both)
                for started in (one, two):
                    started.send_signal(signal.SIGTERM)
                answer = await poll
                assert (answer.status_code, answer.json()) == (200, {})
                async with asyncio.timeout(20):
                    ended = await asyncio.gather(one.communicate(), two.communicate())
                assert [started.returncode for started in (one, two)] == [0, 0], ended
                assert not await members()


@pytest.mark.usefixtures("bus")
async def test_readyz_says_no_while_the_gateway_drains(environment, tls):
    environment["JETBRIDGE_GATEWAY_DRAIN_NOTICE_SECONDS"] = "5"
    port = free_port()
    async with process(environment, "--port", str(port)) as started:
        await listening(started)
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=tls) as client:
            assert (await client.get("/readyz")).status_code == 200
            started.send_signal(signal.SIGTERM)
            async with asyncio.timeout(4):
                while (answer := await client.get("/readyz")).status_code == 200:
                    pass
            assert answer.json()["status"] == "unready"
            assert answer.json()["checks"]["serving"]["detail"] == "shutting down"


@pytest.mark.usefixtures("bus")
async def test_probes_without_a_client_certificate_have_a_port_with_nothing_else(environment, certificates):
    port = free_port()
    environment["JETBRIDGE_GATEWAY_TLS_CLIENT_CA_FILE"] = str(certificates.ca)
    environment["JETBRIDGE_GATEWAY_STATUS_PORT"] = str(port)
    async with (
        process(environment, "--port", "0") as started,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        await listening(started)
        for path in ("healthz", "readyz", "metrics"):
            assert (await client.get(f"/{path}")).status_code == 200, path
        for path in ("v1/depth", "openapi.json", "execution/health", "/healthz", "healthz/", "%68ealthz/.."):
            assert (await client.get(f"/{path}")).status_code == 404, path
        assert (await client.post("/v1/agents", json={})).status_code == 404


@pytest.mark.usefixtures("bus")
async def test_logs_are_json_lines_without_secrets(environment, tokens, tls, jwt_secret_file):
    token, _ = await tokens.create("test")
    port = free_port()
    async with process(environment, "--port", str(port)) as started:
        lines = await listening(started)
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=tls) as client:
            body = {"name": "agent-l", "instance": "0" * 32, "role": "worker"}
            answer = await client.post("/v1/agents", json=body, headers={"Authorization": f"Bearer {token}"})
            await client.post("/v1/agents", json={}, headers={"Authorization": f"Bearer {token}x"})
        started.send_signal(signal.SIGTERM)
        _, rest = await started.communicate()
    text = b"".join(lines).decode() + rest.decode()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert {"gateway.listening", "agent.registered", "request.refused", "gateway.stopped"} <= set(events)
    for secret in (token.secret, answer.json()["credential"], jwt_secret_file.read_text().strip()):
        assert secret not in text


@pytest.mark.usefixtures("bus")
async def test_a_gateway_that_says_all_it_can_says_no_secret(
    environment, tokens, tls, store, workload, queue, airflow, jwt_secret_file, nats_url, redis_url, agent_of
):
    """At debug level, with its traces beside the log, about good requests and about bad ones."""
    environment |= {"JETBRIDGE_LOG_LEVEL": "debug", "OTEL_TRACES_EXPORTER": "console"}
    token, _ = await tokens.create("test")
    await store.submit(workload())
    port = free_port()
    async with process(environment, "--port", str(port)) as started:
        reading = asyncio.create_task(everything(started))
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=tls, timeout=30) as client:
            agent = agent_of(client, str(token), f"agent-{queue}", (queue,))
            await until_it_answers(client)
            assert (await agent.register()).status_code == 200
            _, lease_token = await agent.lease()
            given = {"token": str(token), "credential": agent.credential, "lease": lease_token}
            for held in given.values():
                headers = {"Authorization": f"Bearer {held}"}
                for path in (
                    "/execution/xcoms/d/r/t/k",
                    "/execution/unheard-of",
                    f"/execution/variables/{held}",
                ):
                    await client.get(path, headers=headers)
                    await client.get(path, params={"x": held}, headers=headers)
                for path in ("/v1/agents", f"/v1/agents/{agent.name}/poll", f"/{held}"):
                    await client.post(path, json={"name": held, held: held}, headers=headers)
                    await client.post(path, content=held, headers=headers | {"X-Held": held})
                await client.post("/v1/agents", json={}, headers={"Authorization": f"Bearer {held}x"})
            await agent.heartbeat()
        started.send_signal(signal.SIGTERM)
        text = await reading
    assert "gateway.proxy" in text, "the traces are there"
    assert '"level": "debug"' in text
    minted = [seen["headers"]["authorization"].removeprefix("Bearer ") for seen in airflow.seen]
    assert minted
    passwords = [url.partition("@")[0].rpartition(":")[2] for url in (nats_url, redis_url) if "@" in url]
    parts = [held.rpartition(".")[2] for held in (given["credential"], lease_token, *minted)]
    for secret in (token.secret, jwt_secret_file.read_text().strip(), *parts, *passwords):
        assert secret not in text, text[max(0, text.index(secret) - 300) :][:400]


async def everything(started) -> str:
    """Return all that a process says until it ends."""
    out, error = await started.communicate()
    return out.decode() + error.decode()


async def until_it_answers(client) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.get("/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return


@pytest.mark.usefixtures("bus")
async def test_what_is_missing_is_told_in_one_sentence(environment, nats_url):
    password = nats_url.partition("@")[0].rpartition(":")[2]
    for changes, expected in (
        ({"JETBRIDGE_NATS_URL": f"nats://u:{password}@127.0.0.1:9"}, "no NATS server answers"),
        ({"JETBRIDGE_GATEWAY_TLS_CERT_FILE": "/nowhere.pem"}, "/nowhere.pem"),
        ({"JETBRIDGE_GATEWAY_AIRFLOW_JWT_SECRET_FILE": "/nowhere.key"}, "/nowhere.key"),
    ):
        async with process(environment | changes, "--port", "0") as started:
            _, error = await asyncio.wait_for(started.communicate(), 30)
        last = error.decode().strip().splitlines()[-1]
        assert started.returncode == 1, error
        assert last.startswith("jetbridge gateway: ")
        assert expected in last
        assert "Traceback" not in error.decode()
        assert password not in error.decode()


async def token_command(environment, *arguments):
    started = await asyncio.create_subprocess_exec(
        JETBRIDGE, "token", *arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    out, error = await started.communicate()
    return started.returncode, out.decode(), error.decode()


@pytest.mark.usefixtures("bus")
async def test_a_token_is_made_listed_and_revoked(environment, tokens):
    code, out, notes = await token_command(environment, "create", "--name", "rig 7", "--expires-in-days", "2")
    token = out.strip()
    assert code == 0
    assert TOKEN.fullmatch(token), "stdout holds the token and nothing else"
    assert token not in notes
    token_id = token.split("_")[1]
    expired, _ = await tokens.create("old", timedelta(seconds=-1))

    async def state(wanted):
        code, out, _ = await token_command(environment, "list", "--json")
        assert code == 0
        return next(row["state"] for row in json.loads(out) if row["id"] == wanted)

    assert await state(token_id) == "valid"
    assert await state(expired.id) == "expired"
    _, table, _ = await token_command(environment, "list")
    assert table.splitlines()[0].split() == [
        "ID",
        "NAME",
        "STATE",
        "CREATED",
        "EXPIRES",
        "USED",
        "FROM",
        "FOR",
    ]
    assert "rig 7" in table
    assert token.split("_", 2)[2] not in table

    code, out, notes = await token_command(environment, "revoke", token_id)
    assert (code, out) == (0, "")
    assert "is revoked" in notes
    assert await state(token_id) == "revoked"
    code, _, notes = await token_command(environment, "revoke", token_id)
    assert code == 0
    assert "was already revoked" in notes


@pytest.mark.usefixtures("bus")
async def test_what_cannot_be_done_with_tokens_is_told_in_one_sentence(environment):
    code, _, error = await token_command(environment, "revoke", "000000000000")
    assert code == 1
    assert "no token 000000000000" in error
    code, out, error = await token_command(
        environment | {"JETBRIDGE_NATS_URL": "nats://u:very-secret@127.0.0.1:9"}, "list"
    )
    assert (code, out) == (1, "")
    assert error.count("\n") == 1
    assert "no NATS server answers" in error
    assert "very-secret" not in error
