"""What the router does next, for every state of a workload and of who holds it."""

from datetime import UTC, datetime

import pytest

from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.records import Health, HealthRecord, OnAgentLost, WorkloadRecord, WorkloadState
from jetbridge.router.decisions import Action, Cause, cause, decide, reason

NOW = datetime.now(UTC)


def workload(state, on_agent_lost=OnAgentLost.REROUTE, lease_seconds=0.0):
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
        lease_seconds=lease_seconds,
    )


def holder(health, *, attested=False):
    return HealthRecord(
        agent="worker-1", instance="a", health=health, since=NOW, reason="why", attested=attested
    )


@pytest.mark.parametrize("state", WorkloadState)
@pytest.mark.parametrize("health", [None, *Health])
@pytest.mark.parametrize("policy", [None, OnAgentLost.REROUTE, OnAgentLost.FAIL])
def test_only_a_lease_of_a_lost_agent_and_a_released_record_need_anything(state, health, policy):
    action = decide(workload(state, policy), holder(health) if health else None)
    lost = health in (Health.LOST, Health.GONE)
    if state is WorkloadState.RELEASED:
        assert action is Action.REQUEUE
    elif state is WorkloadState.LEASED and lost:
        assert action is (Action.FAIL if policy is OnAgentLost.FAIL else Action.RELEASE)
    else:
        assert action is Action.NOTHING


WAITING = workload(WorkloadState.LEASED, OnAgentLost.WAIT, lease_seconds=600.0)


@pytest.mark.parametrize(("silent_seconds", "action"), [(120.0, Action.NOTHING), (600.0, Action.FAIL)])
@pytest.mark.parametrize("health", [Health.LOST, Health.GONE])
def test_a_lease_that_waits_is_taken_back_when_its_holder_was_silent_for_all_its_time(
    health, silent_seconds, action
):
    assert decide(WAITING, holder(health), silent_seconds) is action


def test_an_agent_that_was_seen_to_end_is_not_waited_for():
    assert decide(WAITING, holder(Health.LOST, attested=True)) is Action.FAIL


def test_unless_a_newer_process_can_say_how_its_work_ended():
    seen_to_end = holder(Health.LOST, attested=True)
    assert decide(WAITING, seen_to_end, is_succeeded=True) is Action.NOTHING
    assert decide(WAITING, seen_to_end, 600.0, is_succeeded=True) is Action.FAIL
    ordinary = workload(WorkloadState.LEASED)
    assert decide(ordinary, seen_to_end, is_succeeded=True) is Action.RELEASE


def test_a_suspect_is_waited_for_however_long():
    assert decide(WAITING, holder(Health.SUSPECT), 1e9) is Action.NOTHING


def test_the_reason_says_how_long_was_waited():
    assert (
        reason(WAITING, holder(Health.LOST)) == "agent worker-1 was lost (why) and the wait of 600 s is over"
    )


def test_nobody_waited_for_an_agent_that_was_seen_to_end():
    assert reason(WAITING, holder(Health.LOST, attested=True)) == "agent worker-1 was seen to end (why)"


def test_the_reason_names_the_agent_and_how_its_loss_is_known():
    assert reason(workload("leased"), holder(Health.LOST)) == "agent worker-1 was lost (why)"
    assert "was seen to end" in reason(workload("leased"), holder(Health.LOST, attested=True))


def test_metrics_say_why_a_lease_was_taken_back():
    held = workload(WorkloadState.LEASED)
    assert cause(held, holder(Health.LOST)) is Cause.SILENT
    assert cause(WAITING, holder(Health.LOST)) is Cause.WAITED
    assert cause(WAITING, holder(Health.LOST, attested=True)) is Cause.SEEN_TO_END
