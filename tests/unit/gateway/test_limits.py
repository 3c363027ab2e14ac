"""Counting without Redis; with it, see the integration tests."""

import pytest

from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.limits import WINDOW_SECONDS, Limits
from jetbridge.gateway.problems import ProblemError


class NoRedis:
    """A Redis that is away, and counts how often somebody tried."""

    def __init__(self):
        self.tries = 0

    def pipeline(self, transaction):
        assert not transaction
        self.tries += 1
        raise OSError("away")


@pytest.fixture
def clock():
    class Clock:
        now = 1_000_000 * WINDOW_SECONDS + 10.0

        def __call__(self):
            return self.now

    return Clock()


async def test_without_redis_each_gateway_counts_alone_and_leaves_redis_alone(clock):
    redis = NoRedis()
    limits = Limits(redis, clock)
    for _ in range(3):
        await limits.take("failed:a", 3)
    with pytest.raises(ProblemError) as refused:
        await limits.take("failed:a", 3)
    assert refused.value.kind is ProblemType.TOO_MANY
    assert refused.value.headers["Retry-After"] == "50"
    await limits.take("failed:b", 3)
    assert redis.tries == 1


async def test_the_next_minute_begins_anew(clock):
    limits = Limits(NoRedis(), clock)
    await limits.take("x", 1)
    with pytest.raises(ProblemError):
        await limits.take("x", 1)
    clock.now += WINDOW_SECONDS
    await limits.take("x", 1)


async def test_what_is_counted_here_is_bounded(clock):
    limits = Limits(NoRedis(), clock)
    for number in range(11_000):
        await limits.take(f"failed:{number}", 1)
    assert len(limits._here) == 10_000
