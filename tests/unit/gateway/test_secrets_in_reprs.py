"""What holds a secret does not show it when it is printed, formatted or part of an error's text."""

import msgspec
import pytest

from jetbridge.contracts.api import AcceptResponse, HeartbeatResponse, RegisterResponse
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.triggering import TriggerStart
from jetbridge.gateway.airflow_tokens import AirflowTokens
from jetbridge.gateway.credentials import Credentials
from jetbridge.gateway.settings import GatewaySettings

SECRET = "s" * 43
LEASE = "0198a0e0-0000-7000-8000-000000000001.7"


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "jwt"
    file.write_text(SECRET * 3)
    return GatewaySettings(
        host="127.0.0.1",
        allow_plaintext=True,
        redis_url=f"redis://:{SECRET}@127.0.0.1/0",
        airflow_jwt_secret_file=file,
    )


@pytest.fixture
def holders(settings):
    credentials = Credentials((SECRET * 3).encode())
    return [
        settings,
        AirflowTokens(settings),
        credentials,
        AgentToken("0" * 12, SECRET),
        RegisterResponse(
            agent="a",
            credential=SECRET,
            credential_expires_in_seconds=1.0,
            heartbeat_interval_seconds=1.0,
            poll_wait_seconds=1.0,
            lease_seconds=1.0,
        ),
        HeartbeatResponse(credential=SECRET),
        AcceptResponse(lease=LEASE, token=SECRET),
        TriggerStart(trigger_id=1, spec=msgspec.Raw(b"{}"), arguments=SECRET, token=SECRET),
    ]


def test_no_secret_is_shown(holders):
    for holder in holders:
        for text in (repr(holder), f"{holder!r}", f"{[holder]}"):
            assert SECRET not in text, type(holder)


def test_what_is_no_secret_is_shown(holders):
    assert LEASE in repr(holders[6])
    assert "credential=None" in repr(HeartbeatResponse())
