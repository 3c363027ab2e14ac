from __future__ import annotations

import os

import pytest

from jetbridge.agent.gateway_client import GatewayClient
from jetbridge.agent.link import Backoff, Link
from jetbridge.agent.session import Session, new_instance
from jetbridge.agent.testing import FakeGateway
from jetbridge.contracts.api import RegisterRequest


@pytest.fixture
def gateway():
    return FakeGateway()


@pytest.fixture
def token_file(tmp_path, gateway):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{gateway.token}\n")
    return path


@pytest.fixture
async def client(gateway):
    async with GatewayClient("https://gateway.test", http=gateway.http()) as client:
        yield client


@pytest.fixture
def link():
    return Link(lambda: Backoff(base_seconds=0.001, cap_seconds=0.01))


@pytest.fixture
def session(client, link, token_file):
    identity = RegisterRequest(name="a1", instance=new_instance(), role="worker", queues=("q",), slots=2)
    return Session(client, link, identity, token_file)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith("JETBRIDGE_"):
            monkeypatch.delenv(name)
