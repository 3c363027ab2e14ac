"""Which policy wins."""

from datetime import UTC, datetime

import pytest

from jetbridge.contracts.ids import InvalidIdError
from jetbridge.contracts.policies import (
    DEPLOYMENT,
    Failover,
    FailoverPolicy,
    PolicyRecord,
    boundary_rule,
    check_scope,
    failover,
    policy_key,
    scopes,
)
from jetbridge.contracts.records import OnAgentLost


def policies(**failovers):
    return {
        scope.replace("__", ":"): PolicyRecord(
            scope=scope.replace("__", ":"), changed_at=datetime.now(UTC), failover=policy
        )
        for scope, policy in failovers.items()
    }


FAIL, WAIT = (FailoverPolicy(on_agent_lost=choice) for choice in (OnAgentLost.FAIL, OnAgentLost.WAIT))


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, OnAgentLost.REROUTE),
        ({"deployment": FAIL}, OnAgentLost.FAIL),
        ({"deployment": FAIL, "site__paris": WAIT}, OnAgentLost.WAIT),
        ({"site__paris": FAIL, "queue__gpu": WAIT}, OnAgentLost.WAIT),
        ({"site__rome": FAIL, "queue__cpu": FAIL}, OnAgentLost.REROUTE),
        ({"deployment": FAIL, "queue__gpu": FailoverPolicy(wait_seconds=9)}, OnAgentLost.FAIL),
    ],
)
def test_the_narrowest_scope_that_says_something_wins(there, expected):
    assert failover(policies(**there), "gpu", "paris").on_agent_lost is expected


def test_fields_come_from_different_scopes():
    there = policies(
        deployment=FailoverPolicy(fallback_queues=("a",), wait_seconds=1.0),
        queue__gpu=FailoverPolicy(fallback_queues=()),
    )
    assert failover(there, "gpu") == Failover(wait_seconds=1.0)


def test_boundary_rules_likewise():
    def record(scope, **boundary):
        return PolicyRecord(scope=scope, changed_at=datetime.now(UTC), boundary=boundary)

    there = {
        one.scope: one for one in (record(DEPLOYMENT, a="open", b="open"), record("queue:gpu", a="closed"))
    }
    found = [boundary_rule(there, data, queue) for data in "abc" for queue in ("gpu", "cpu")]
    assert found == ["closed", "open", "open", "open", None, None]


@pytest.mark.parametrize("scope", ["deployment", "site:paris", "queue:a b.c/*", "queue:site:x"])
def test_scopes(scope):
    assert check_scope(scope) == scope
    assert all(character.isalnum() for character in policy_key(scope))


@pytest.mark.parametrize("scope", ["", "queue:", "queues:a", "site:a\n", "Deployment", "queue:" + "x" * 257])
def test_no_scopes(scope):
    with pytest.raises(InvalidIdError):
        check_scope(scope)


def test_a_queue_without_a_site_is_not_asked_about_sites():
    assert scopes("gpu") == ("queue:gpu", DEPLOYMENT)
