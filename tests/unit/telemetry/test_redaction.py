"""Secrets never reach a log line, and what is not a secret stays readable."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.telemetry.redaction import redact, redact_event, redact_field, redact_text

SECRET = "s3cr3t-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcd"
AGENT_TOKEN = f"jb_0123456789ab_{SECRET[:43]}"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {AGENT_TOKEN} refused", "token jb_0123456789ab_*** refused"),
        (f"cut {AGENT_TOKEN[:24]}", "cut jb_0123456789ab_***"),
        (f"bearer is {JWT}!", "bearer is ***!"),
        (JWT.rpartition(".")[0], "***"),
        (f"Authorization: Bearer {SECRET}", "Authorization: ***"),
        (f"{{'authorization': 'Basic {SECRET}'}}", "{'authorization': '***'}"),
        (f"(b'authorization', b'Bearer {SECRET}')", "(b'authorization', b'***')"),
        (f"sent Bearer {SECRET} there", "sent Bearer *** there"),
        ("postgresql://airflow:p4ss@db:5432/x", "postgresql://airflow:***@db:5432/x"),
        ("redis://:p4ss@cache:6379/0", "redis://:***@cache:6379/0"),
        ("amqp://u:p@ss@host/v and more", "amqp://u:***@host/v and more"),
        ("https://ghp_0123456789abcdefghij@git.example/x", "https://***@git.example/x"),
        ("host=db password=p4ss dbname=x", "host=db password=*** dbname=x"),
        ('{"secret_key": "p4ss", "region": "r"}', '{"secret_key": "***", "region": "r"}'),
        ("https://s3/b/k?X-Amz-Signature=abcd1234&x=1", "https://s3/b/k?X-Amz-Signature=***&x=1"),
    ],
)
def test_secrets_in_text_are_masked(text: str, expected: str) -> None:
    assert redact_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "basic authentication is off; the bearer presents a token",
        "https://gateway.example:8443/v1/agents?name=a@b",
        "s3://jetbridge-xcom/dag/run/task",
        "token_id=0123456789ab revoked",
        "jb_events is a stream",
        "XCom key return_value",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "name", ["authorization", "password", "db_password", "token", "secret-key", "credential"]
)
def test_a_field_named_like_a_secret_is_masked_whatever_it_holds(name: str) -> None:
    assert redact_field(name, "short") == "***"
    assert redact_field(name, ["short"]) == "***"
    assert redact_field(name, None) is None


def test_an_agent_token_keeps_its_public_id() -> None:
    assert redact_field("token", AGENT_TOKEN) == "jb_0123456789ab_***"


@pytest.mark.parametrize("name", ["token_id", "key", "bucket", "event"])
def test_public_fields_are_not_masked(name: str) -> None:
    assert redact_field(name, "value") == "value"


class _Holder:
    def __str__(self) -> str:
        return f"<holds {AGENT_TOKEN}>"


def test_objects_are_redacted_by_their_text_and_containers_by_their_parts() -> None:
    error = ValueError(f"no {AGENT_TOKEN}")
    value = {
        "a": [_Holder(), (JWT,), {"password": "x"}],
        "e": error,
        "n": 3,
        "t": datetime(2026, 1, 1, tzinfo=UTC),
    }
    assert redact(value) == {
        "a": ["<holds jb_0123456789ab_***>", ["***"], {"password": "***"}],
        "e": "ValueError: no jb_0123456789ab_***",
        "n": 3,
        "t": "2026-01-01 00:00:00+00:00",
    }


def test_a_value_that_contains_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "***" in str(redact(loop))


def test_the_event_text_itself_is_redacted() -> None:
    assert redact_event(None, "info", {"event": AGENT_TOKEN})["event"] == "jb_0123456789ab_***"


_token_text = st.text(string.ascii_letters + string.digits + "_-", min_size=43, max_size=43)
_around = st.text(" \n\t'\"({[<:=,;", max_size=5)


@given(secret=_token_text, before=_around, after=_around, nest=st.integers(0, 4))
def test_no_agent_token_survives_anywhere(secret: str, before: str, after: str, nest: int) -> None:
    value: Any = f"{before}jb_0123456789ab_{secret}{after}"
    for _ in range(nest):
        value = {"field": [value]}
    assert secret not in str(redact(value))
