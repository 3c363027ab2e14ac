"""What the router does next, for every state of a workload and of who holds it."""

from datetime import UTC, datetime

import pytest

from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.records import Health, HealthRecord, OnAgentLost, WorkloadRecord, WorkloadState
from jetbridge.router.decisions import Action, decide, reason

NOW = datetime.now(UTC)


def workload(state, on_agent_lost=OnAgentLost.REROUTE):
    return WorkloadRecord(
        workload_id="00000000-0000-0000-0000-000000000001",
        kind=WorkloadKind.TASK,
        state=state,
        queue="default",
        coordinates=TaskCoordinates(dag_id="d", run_id="r"),
        changed_at=NOW,
        epoch=7,
        agent="worker-1",
        instance="a",
        on_agent_lost=on_agent_lost,
    )


def holder(health, *, attested=False):
    return HealthRecord(
        agent="worker-1", instance="a", health=health, since=NOW, reason="why", attested=attested
    )


@pytest.mark.parametrize("state", WorkloadState)
@pytest.mark.parametrize("health", [None, *Health])
@pytest.mark.parametrize("policy", OnAgentLost)
def test_only_a_lease_of_a_lost_agent_and_a_released_record_need_anything(state, health, policy):
    action = decide(workload(state, policy), holder(health) if health else None)
    lost = health in (Health.LOST, Health.GONE)
    if state is WorkloadState.RELEASED:
        assert action is Action.REQUEUE
    elif state is WorkloadState.LEASED and lost:
        assert action is (Action.FAIL if policy is OnAgentLost.FAIL else Action.RELEASE)
    else:
        assert action is Action.NOTHING


def test_the_reason_names_the_agent_and_how_its_loss_is_known():
    assert reason(workload("leased"), holder(Health.LOST)) == "agent worker-1 was lost (why)"
    assert "was seen to end" in reason(workload("leased"), holder(Health.LOST, attested=True))
