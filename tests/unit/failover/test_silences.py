"""How long a lease that waits is waited for, and that its agent has always killed its task before."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.bus.kv import Versioned
from jetbridge.contracts.api import FENCE_SHARE, MIN_LEASE_SECONDS
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.policies import MAX_WAIT_FOR_AGENT_SECONDS, Failover
from jetbridge.contracts.records import Health, HealthRecord, OnAgentLost, WorkloadRecord, WorkloadState
from jetbridge.gateway.terms import decide_terms
from jetbridge.router.decisions import Action, decide
from jetbridge.router.silences import Silences
from jetbridge.sentinel.silence import Limits, Look, SilenceWatch

NOW = datetime.now(UTC)
KILL_SECONDS = 2.0
"""SIGKILL takes milliseconds; a loaded machine may take longer to schedule it."""


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def health(state, silent_seconds=0.0, revision=1):
    record = HealthRecord(agent="a", instance="i", health=state, since=NOW, silent_seconds=silent_seconds)
    return Versioned(record, revision)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def silences(clock):
    return Silences(clock)


def test_silence_goes_on_from_what_the_sentinel_had_proven(silences, clock):
    lost = health(Health.LOST, 120.0)
    assert silences.seconds("a/i", lost) == 120
    clock.now += 30
    assert silences.seconds("a/i", lost) == 150


@pytest.mark.parametrize("after", [health(Health.HEALTHY), health(Health.SUSPECT, 15.0), None])
def test_an_agent_that_was_heard_is_not_silent(silences, clock, after):
    silences.seconds("a/i", health(Health.LOST, 120.0))
    clock.now += 30
    assert silences.seconds("a/i", after) == 0
    assert silences.seconds("a/i", health(Health.LOST, 120.0)) == 120


def test_lost_again_counts_anew(silences, clock):
    silences.seconds("a/i", health(Health.LOST, 120.0))
    clock.now += 500
    again = health(Health.LOST, 120.0, revision=3)  # that it was heard in between went unseen
    assert silences.seconds("a/i", again) == 120


def test_a_router_that_starts_anew_counts_from_what_it_finds(clock):
    clock.now += 500
    assert Silences(clock).seconds("a/i", health(Health.LOST, 120.0)) == 120


def waiting(lease_seconds, wait_seconds):
    record = WorkloadRecord(
        workload_id="00000000-0000-0000-0000-000000000001",
        kind=WorkloadKind.TASK,
        state=WorkloadState.LEASED,
        queue="default",
        coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
        changed_at=NOW,
        on_agent_lost=OnAgentLost.WAIT,
        wait_seconds=wait_seconds,
    )
    return record, decide_terms(record, Failover(), lease_seconds)


@given(
    lease=st.floats(MIN_LEASE_SECONDS, 86400),
    wait=st.floats(0.001, MAX_WAIT_FOR_AGENT_SECONDS),
    later=st.floats(0, 30),
    seen_after=st.floats(0, 5),
    read_after=st.floats(0, 600),
    sentinel_longer=st.floats(1, 3),
    gap=st.floats(0, 1e5),
)
def test_never_taken_back_before_the_agent_has_killed_it(
    lease, wait, later, seen_after, read_after, sentinel_longer, gap
):
    """
    The safety argument for ``wait``: the agent's fence is over before the router's count is.

    A last heartbeat is sent, and seen by the sentinel ``seen_after`` later. It writes *lost* in the first
    look after its own lease time, ``later`` than that; the router reads it ``read_after`` later and acts
    ``gap`` after that at the earliest moment its count allows.
    """
    record, terms = waiting(lease, wait)
    sent_at = 1000.0
    fenced_at = sent_at + FENCE_SHARE * terms.lease_seconds + KILL_SECONDS

    limits = Limits(heartbeat_seconds=5, lease_seconds=lease * sentinel_longer, forget_seconds=1e9)
    watch = SilenceWatch(limits, max_gap_seconds=1e9)
    watch.take(Look(at=sent_at + seen_after, beats={"a/i": 1.0}, hearing=True))
    at = sent_at + seen_after + lease * sentinel_longer + later
    silence = watch.take(Look(at=at, beats={"a/i": 1.0}, hearing=True))["a/i"]
    if watch.verdict(silence.seconds) is not Health.LOST:
        return  # a rounding error short of it
    clock = Clock()
    silences = Silences(clock)
    clock.now = at + read_after
    written = health(Health.LOST, silence.seconds)
    leased = _on_terms(record, terms)
    remaining = max(0.0, terms.lease_seconds - silences.seconds("a/i", written))
    for moment in (clock.now, clock.now + min(gap, remaining), clock.now + remaining):
        clock.now = moment
        if decide(leased, written.record, silences.seconds("a/i", written)) is not Action.NOTHING:
            assert moment > fenced_at


def _on_terms(record, terms):
    return msgspec.structs.replace(record, **msgspec.structs.asdict(terms))
