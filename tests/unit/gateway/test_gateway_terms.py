"""Who decides about a lease: the task, then the policy of its queue."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jetbridge.bus.workloads import Terms
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.policies import Failover
from jetbridge.contracts.records import OnAgentLost, WorkloadRecord, WorkloadState
from jetbridge.gateway.terms import decide_terms

REROUTE, FAIL, WAIT = OnAgentLost.REROUTE, OnAgentLost.FAIL, OnAgentLost.WAIT
ORDINARY_SECONDS = 120.0


def offered(on_agent_lost, wait_seconds=0.0, kind=WorkloadKind.TASK):
    return WorkloadRecord(
        workload_id="00000000-0000-0000-0000-000000000001",
        kind=kind,
        state=WorkloadState.OFFERED,
        queue="default",
        coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
        changed_at=datetime.now(UTC),
        on_agent_lost=on_agent_lost,
        wait_seconds=wait_seconds,
    )


def waits(wait_seconds, lease_seconds):
    return Terms(on_agent_lost=WAIT, wait_seconds=wait_seconds, lease_seconds=lease_seconds)


@pytest.mark.parametrize(
    ("asked", "policy", "terms"),
    [
        ((None,), Failover(), Terms(on_agent_lost=REROUTE)),
        ((None,), Failover(on_agent_lost=FAIL), Terms(on_agent_lost=FAIL)),
        ((REROUTE,), Failover(on_agent_lost=FAIL), Terms(on_agent_lost=REROUTE)),
        ((None,), Failover(on_agent_lost=WAIT, wait_seconds=900), waits(900, 900)),
        ((None, 60.0), Failover(on_agent_lost=WAIT, wait_seconds=900), waits(60, ORDINARY_SECONDS)),
        ((WAIT,), Failover(wait_seconds=900), waits(900, 900)),
        ((WAIT, 7200.0), Failover(), waits(7200, 7200)),
        ((FAIL, 7200.0), Failover(on_agent_lost=WAIT), Terms(on_agent_lost=FAIL, wait_seconds=7200)),
        ((WAIT, 0.0, WorkloadKind.CALLBACK), Failover(), Terms(on_agent_lost=REROUTE)),
    ],
)
def test_terms(asked, policy, terms):
    assert decide_terms(offered(*asked), policy, ORDINARY_SECONDS) == terms
