"""Gateways that want a client certificate, tokens bound to one, and Airflow's own client with one."""

import asyncio
import hashlib
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme

from jetbridge.agent.airflow_tls import tls_environment
from jetbridge.agent.gateway_client import tls_context


@dataclass
class Pair:
    """A client certificate in files, and how a token names it."""

    certificate: Path
    key: Path

    @property
    def files(self):
        return self.certificate, self.key

    @property
    def sha256(self):
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


def make_pair(authority, directory, name):
    issued = authority.issue_cert(f"{name}.agents.example")
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
    issued.cert_chain_pems[0].write_to_path(pair.certificate)
    issued.private_key_pem.write_to_path(pair.key)
    return pair


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    directory = tmp_path_factory.mktemp("clients")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    found = {name: make_pair(authority, directory, name) for name in ("one", "two")}
    found["stranger"] = make_pair(trustme.CA(), directory, "stranger")
    return directory / "ca.pem", found


@pytest.fixture
async def strict(start_gateway, clients):
    return await start_gateway(tls_client_ca_file=clients[0])


@pytest.fixture
def connect(strict, certificates, clients):
    def connect(name=None):
        cert = clients[1][name].files if name else None
        return httpx.AsyncClient(base_url=strict.url, verify=tls_context(certificates.ca, cert), timeout=60)

    return connect


async def test_nobody_talks_without_a_certificate_of_the_named_authority(connect):
    async with connect("one") as client:
        assert (await client.get("/healthz")).status_code == 200
    for name in (None, "stranger"):
        async with connect(name) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")


async def test_a_bound_token_is_worth_nothing_over_another_certificate(
    connect, clients, make_agent, store, workload, problem, auth
):
    agent = await make_agent(certificate=clients[1]["one"].sha256)
    async with connect("one") as right, connect("two") as wrong:
        agent.client = wrong
        assert "client certificate" in problem(await agent.register(), "forbidden")["detail"]
        agent.client = right
        assert (await agent.register()).status_code == 200
        await store.submit(workload())
        _, token = await agent.lease()
        assert (await right.get("/execution/xcoms/d/r/t/k", headers=auth(token))).status_code == 200
        problem(await wrong.get("/execution/xcoms/d/r/t/k", headers=auth(token)), "forbidden")
        problem(await agent.heartbeat(wrong), "forbidden")
        assert (await agent.heartbeat(right)).status_code == 200


async def test_without_client_certificates_a_bound_token_is_refused(make_agent, problem):
    problem(await (await make_agent(certificate="0" * 64)).register(), "forbidden")


_ASK = """
import os
from airflow.sdk.api.client import Client
client = Client(base_url=os.environ["SERVER"], token=os.environ["TOKEN"])
print(client.get("xcoms/d/r/t/k").status_code)
"""


async def test_airflows_own_client_shows_the_certificate(
    strict, connect, clients, certificates, make_agent, store, workload, tmp_path
):
    agent = await make_agent()
    async with connect("one") as client:
        agent.client = client
        await agent.register()
        await store.submit(workload())
        _, token = await agent.lease()
    environment = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(tmp_path),
        "SERVER": f"{strict.url}/execution/",
        "TOKEN": token,
        **tls_environment(certificates.ca, clients[1]["one"].files),
    }
    asked = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _ASK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stdout.split()[-1:] == ["200"], asked.stderr[-2000:]
