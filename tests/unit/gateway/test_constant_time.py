"""How long a login takes says nothing: whatever is wrong, the same comparisons of whole hashes are made."""

import hmac
from datetime import UTC, datetime, timedelta

import pytest

from jetbridge.bus.tokens import hash_secret, is_valid
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.records import TokenRecord
from jetbridge.gateway.auth import _if_valid

NOW = datetime.now(UTC)
GIVEN = AgentToken.generate()


def record(secret=GIVEN.secret, **changes):
    about = {"created_at": NOW, "expires_at": NOW + timedelta(days=1), **changes}
    return TokenRecord(id=GIVEN.id, name="test", secret_sha256=hash_secret(secret), **about)


RECORDS = {
    "right": record(),
    "another secret": record("x"),
    "one before, in its overlap": record(
        "x", previous_sha256=hash_secret(GIVEN.secret), previous_until=NOW + timedelta(hours=1)
    ),
    "one before, too late": record(
        "x", previous_sha256=hash_secret(GIVEN.secret), previous_until=NOW - timedelta(hours=1)
    ),
    "revoked": record(revoked_at=NOW),
    "expired": record(expires_at=NOW - timedelta(days=1)),
    "unknown": None,
}


@pytest.fixture
def compared(monkeypatch):
    compare, lengths = hmac.compare_digest, []

    def noted(one, other):
        lengths.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    return lengths


@pytest.mark.parametrize("name", RECORDS)
def test_every_login_makes_the_same_comparisons(compared, name):
    opened = _if_valid(RECORDS[name], GIVEN)
    assert (opened is not None) is (name in ("right", "one before, in its overlap"))
    assert compared == [(64, 64), (64, 64)]


def test_a_prefix_of_the_secret_is_as_wrong_as_anything(compared):
    assert not is_valid(record(), GIVEN.secret[:-1], NOW)
    assert compared == [(64, 64), (64, 64)]
