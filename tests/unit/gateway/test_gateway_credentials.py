"""Credentials and lease tokens: only what we signed, each for its own purpose."""

import base64
import json
import secrets
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.contracts.ids import LeaseKey
from jetbridge.gateway import credentials as module
from jetbridge.gateway.budget import Budget
from jetbridge.gateway.credentials import Credentials
from jetbridge.gateway.problems import ProblemError

KEY = secrets.token_bytes(64)
LEASE = LeaseKey("0198a0e0-0000-7000-8000-000000000001", 7)


@pytest.fixture
def credentials():
    return Credentials(KEY)


def read_lease(credentials, token):
    return credentials.read_holder_token(token)


def test_a_credential_says_who(credentials):
    claims = credentials.read_credential(credentials.issue_credential("a", "i", "t", 60))
    assert (claims.agent, claims.instance, claims.token_id) == ("a", "i", "t")
    assert not claims.past_half_life(60)
    assert claims.past_half_life(200)


def test_a_lease_token_is_the_same_each_time_and_does_not_expire(credentials):
    token = credentials.issue_lease_token(LEASE, "a")
    assert token == credentials.issue_lease_token(LEASE, "a")
    assert "exp" not in jwt.decode(token, options={"verify_signature": False})
    claims = read_lease(credentials, token)
    assert (claims.lease, claims.agent) == (LEASE, "a")


def test_one_kind_does_not_stand_in_for_another(credentials):
    with pytest.raises(ProblemError):
        credentials.read_credential(credentials.issue_lease_token(LEASE, "a"))
    with pytest.raises(ProblemError):
        read_lease(credentials, credentials.issue_credential("a", "i", "t", 60))


def test_an_expired_credential_is_refused_also_when_it_was_seen_before(credentials, monkeypatch):
    token = credentials.issue_credential("a", "i", "t", 60)
    credentials.read_credential(token)
    later = time.time() + 61
    monkeypatch.setattr(module.time, "time", lambda: later)
    with pytest.raises(ProblemError):
        credentials.read_credential(token)


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512"])
def test_other_algorithms_are_refused_even_with_our_key(credentials, algorithm):
    claims = {"sub": "a", "ins": "i", "tid": "t", "exp": time.time() + 60, "aud": "jetbridge-agent"}
    token = jwt.encode(claims, "" if algorithm == "none" else KEY, algorithm)
    with pytest.raises(ProblemError):
        credentials.read_credential(token)


@pytest.mark.parametrize("missing", ["sub", "ins", "tid", "exp", "aud"])
def test_every_claim_is_needed(credentials, missing):
    claims = {"sub": "a", "ins": "i", "tid": "t", "exp": time.time() + 60, "aud": "jetbridge-agent"}
    del claims[missing]
    with pytest.raises(ProblemError):
        credentials.read_credential(jwt.encode(claims, KEY, "HS256"))


def test_a_deep_header_is_refused_like_any_other(credentials):
    header = base64.urlsafe_b64encode(b"[" * 700).decode().rstrip("=")
    for text in (f"{header}.e30.x", "é.é.é", "a.b", "", "." * 50, "x" * 5000):
        with pytest.raises(ProblemError):
            credentials.read_credential(text)


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode() + ".e30.x"))
def test_any_text_is_refused(text):
    with pytest.raises(ProblemError):
        Credentials(KEY).read_credential(text)


def test_the_cache_is_bounded(credentials, monkeypatch):
    monkeypatch.setattr(module, "_CACHED", 10)
    for number in range(50):
        credentials.read_credential(credentials.issue_credential(f"a{number}", "i", "t", 60))
    assert len(credentials._agents._known) == 10


def test_nothing_about_a_token_is_in_the_problem(credentials):
    token = credentials.issue_credential("a", "i", "t", -1)
    with pytest.raises(ProblemError) as caught:
        credentials.read_credential(token)
    assert token not in json.dumps([str(caught.value), repr(caught.value)])


def test_a_budget_fills_again_and_holds_no_more_than_a_seconds_worth():
    now = 0.0
    budget = Budget(2.0, lambda: now)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now = 0.5
    assert [budget.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert [budget.take() for _ in range(3)] == [True, True, False]
