"""
Every way in which one task's hand-over can go, for small bounds: the invariants of design section 8 hold.

And with any one rule broken they do not, which shows that the model would notice.
"""

import faulthandler
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from protocol import model as protocol
from protocol.explorer import explore
from protocol.model import Model, Rules, costs_a_retry, forbidden, is_done, start

from jetbridge.bus import workloads
from jetbridge.bus.intake import Verdict
from jetbridge.contracts.records import Health, OnAgentLost, WorkloadState
from jetbridge.router import decisions
from jetbridge.router.decisions import Action


def explored(rules, invariant=costs_a_retry):
    return explore(start(rules), Model(rules).steps, invariant)


def assert_right(rules, invariant=costs_a_retry):
    exploration = explored(rules, invariant)
    assert exploration.violation is None, str(exploration.violation)
    lost = exploration.cannot_reach(is_done)
    assert lost is None, str(lost)
    assert len(exploration.came_from) > 1000  # it did explore
    return exploration


@pytest.mark.parametrize(
    "rules",
    [
        Rules(offers=(1, 0)),
        pytest.param(Rules(offers=(2, 0)), id="an offer is made to the same agent again"),
        pytest.param(Rules(offers=(3, 0)), id="and once more", marks=pytest.mark.long),
        pytest.param(Rules(offers=(1, 1)), id="the second attempt too", marks=pytest.mark.long),
        # The plane counts a tick more than the agent, and more can happen within a lease.
        pytest.param(Rules(offers=(2, 0), lease=3, fence=2), id="longer leases", marks=pytest.mark.long),
        # Half a million states, and a gigabyte for them.
        pytest.param(Rules(offers=(2, 1)), id="all of it together", marks=pytest.mark.long),
    ],
)
def test_nothing_is_lost_nothing_runs_twice_at_once_and_no_retry_is_used_up(rules):
    faulthandler.cancel_dump_traceback_later()  # the largest may take longer than a test that hangs
    ends = assert_right(rules).came_from
    assert any(state.current == 1 and state.ended for state in ends)  # a reroute was among it


@pytest.mark.parametrize("policy", [OnAgentLost.FAIL, OnAgentLost.WAIT])
def test_work_that_must_not_be_repeated_never_is(policy):
    ends = assert_right(Rules(on_agent_lost=policy), forbidden).came_from
    assert all(state.current == 0 for state in ends)
    assert any(state.ended == ("failed",) for state in ends)


@pytest.mark.parametrize("guard", ["start_asks_plane", "stale_confirmation_is_dropped"])
def test_either_guard_against_a_late_confirmation_is_enough(guard):
    """Tasks have the first: Airflow asks before it starts one. Callbacks have no such question."""
    other = {"start_asks_plane", "stale_confirmation_is_dropped"} - {guard}
    assert_right(Rules(**dict.fromkeys(other, False)))


def found(rules):
    exploration = explored(rules)
    return exploration.violation or exploration.cannot_reach(is_done)


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("the fence is later than the lease", Rules(fence=3)),
        ("a heartbeat counts from its answer", Rules(count_from_sending=False)),
        (
            "a late confirmation is believed",
            Rules(start_asks_plane=False, stale_confirmation_is_dropped=False),
        ),
    ],
)
def test_with_a_rule_of_time_broken_something_runs_twice(rule, broken):
    assert found(broken).rule == "twice at once", rule


def test_without_the_check_of_the_epoch_something_runs_twice(monkeypatch):
    def holds(record, _lease, agent):
        return record.state is WorkloadState.LEASED and record.agent == agent

    monkeypatch.setattr(workloads, "holds", holds)
    assert found(Rules(offers=(2, 0))).rule == "twice at once"


def test_when_suspicion_is_enough_for_the_router_something_runs_twice(monkeypatch):
    monkeypatch.setattr(
        decisions, "is_lost", lambda record: record.health in (Health.SUSPECT, Health.LOST, Health.GONE)
    )
    assert found(Rules(lease=3, fence=2)).rule == "twice at once"


def test_when_work_is_acknowledged_before_the_lease_something_is_lost():
    assert found(Rules(acknowledge_after_record=False)).rule == "lost for ever"


def test_when_an_offer_is_not_made_again_something_is_lost(monkeypatch):
    real = protocol.judge

    def judge(workload, submitted):
        offered = workload is not None and workload.record.state is WorkloadState.OFFERED
        return Verdict.DONE if offered else real(workload, submitted)

    monkeypatch.setattr(protocol, "judge", judge)
    assert found(Rules()).rule == "lost for ever"


def test_when_released_work_is_not_put_back_something_is_lost(monkeypatch):
    real = protocol.decide

    def decide(record, holder):
        return Action.NOTHING if record.state is WorkloadState.RELEASED else real(record, holder)

    monkeypatch.setattr(protocol, "decide", decide)
    assert found(Rules()).rule == "lost for ever"


def test_when_a_lost_lease_costs_a_retry_it_is_found(monkeypatch):
    monkeypatch.setattr(decisions, "FAILS_WHEN_LOST", frozenset(OnAgentLost))
    assert found(Rules()).rule == "cost a retry"
