"""What silence proves, and above all what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.contracts.records import Health
from jetbridge.sentinel.silence import Limits, Look, Silence, SilenceWatch

LIMITS = Limits(heartbeat_seconds=5, lease_seconds=120, forget_seconds=1000)
MEMBER = "worker-1/abc"


def watch(limits=LIMITS):
    return SilenceWatch(limits, max_gap_seconds=5)


def looks(watch, *steps, start=0.0):
    """Feed one look per second; each step is (score or None, hearing, store). Return the last silence."""
    silence = {}
    for at, (score, hearing, store) in enumerate(steps):
        beats = None if score is None else {MEMBER: score}
        silence = watch.take(Look(at=start + at, beats=beats, hearing=hearing, store=store))
    return silence[MEMBER].seconds


def test_a_member_that_beats_is_never_silent():
    assert looks(watch(), *[(float(n), True, "r") for n in range(300)]) == 0


def test_silence_counts_from_the_last_change_seen():
    assert looks(watch(), *[(1.0, True, "r")] * 121) == 120


@pytest.mark.parametrize(
    ("seconds", "health"),
    [(0, "healthy"), (14, "healthy"), (15, "suspect"), (119, "suspect"), (120, "lost"), (1000, "gone")],
)
def test_verdicts(seconds, health):
    assert watch().verdict(seconds) is Health(health)


def test_a_new_sentinel_gives_everybody_the_full_time():
    assert looks(watch(), (1.0, True, "r")) == 0


@pytest.mark.parametrize(
    "interruption",
    [(None, False, ""), (1.0, False, "r"), (1.0, True, "another redis")],
    ids=["redis away", "nobody could hear", "redis restarted"],
)
def test_the_count_starts_over_when_somebody_might_have_gone_unheard(interruption):
    before = [(1.0, True, "r")] * 110
    after = [(1.0, True, interruption[2] or "r")] * 60
    assert looks(watch(), *before, interruption, *after) == 60


def test_a_sentinel_that_was_paused_heard_nothing():
    one = watch()
    looks(one, *[(1.0, True, "r")] * 110)
    assert looks(one, (1.0, True, "r"), start=1000.0) == 0


def test_silence_ends_with_the_last_gateway_that_could_have_heard():
    one = watch()
    for at in range(200):
        look = Look(at=float(at), beats={MEMBER: 1.0}, hearing=True, heard_until=min(at, 50.0), store="r")
        silence = one.take(look)
    assert silence[MEMBER].seconds == 50


def test_a_clock_that_jumps_back_in_redis_is_a_beat_like_any_other():
    assert looks(watch(), (5000.0, True, "r"), *[(4000.0, True, "r")] * 3) == 2


def test_a_member_that_vanished_from_redis_is_still_counted():
    one = watch()
    looks(one, (1.0, True, "r"))
    for at in range(1, 31):
        silence = one.take(Look(at=float(at), beats={}, hearing=True, store="r"))
    assert silence == {MEMBER: Silence(30.0, fresh=False)}


@given(
    beats=st.lists(st.tuples(st.floats(0, 50), st.booleans()), max_size=40),
    lag=st.floats(0, 3),
    lease=st.floats(15, 600),
)
def test_never_lost_before_the_agents_own_count_is_over(beats, lag, lease):
    """
    The safety argument: an agent stops ``lease`` after it *sent* its last recorded heartbeat.

    Heartbeats are sent at any distance and seen ``lag`` later by a sentinel that looks every second; some
    looks fail. At no look may the verdict be *lost* while the agent still runs.
    """
    limits = Limits(heartbeat_seconds=5, lease_seconds=lease, forget_seconds=1e9)
    one = SilenceWatch(limits, max_gap_seconds=5)
    sent, at = [], 0.0
    for distance, _ in beats:
        at += distance
        sent.append(at)
    blind = {int(index * 7) for index, (_, failed) in enumerate(beats) if failed}
    for second in range(int(at + lease) + 10):
        recorded = [moment for moment in sent if moment + lag <= second]
        if not recorded:
            continue
        hearing = second not in blind
        silence = one.take(Look(at=float(second), beats={MEMBER: recorded[-1]}, hearing=hearing, store="r"))
        running_until = recorded[-1] + lease
        if one.verdict(silence[MEMBER].seconds) is Health.LOST:
            assert second >= running_until
