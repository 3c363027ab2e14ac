"""
How often something may happen in a minute, counted by all gateways together in Redis.

Without Redis each gateway counts for itself, so with N gateways N times as much is let through: an outage
of Redis must not lock agents out. Windows are whole minutes of the clock; an attempt that comes at the end of
one and again at the start of the next passes twice, which is no matter at these rates.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.problems import ProblemError

log = structlog.get_logger(__name__)

WINDOW_SECONDS = 60
_KEY = "jetbridge:limit"
_COUNTED_HERE = 10_000
"""Counters of this process alone; the least recently used go first, so memory is bounded."""

_RETRY_REDIS_SECONDS = 5.0
"""After a failure Redis is left alone this long: an attempt costs up to its time limit."""


class Limits:
    """Counts attempts by name, for example ``failed:192.0.2.1``."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.time) -> None:
        """Count in ``client``; ``clock`` gives seconds since the epoch, on which windows must agree."""
        self._client = client
        self._clock = clock
        self._here: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._redis_again_at = 0.0

    async def take(self, name: str, per_minute: int) -> None:
        """Count an attempt; raises the 429 to answer with when there were more than ``per_minute``."""
        if await self._count(name) > per_minute:
            raise too_many(self._left())

    async def _count(self, name: str) -> int:
        window = self._window()
        counted = self._here.get((name, window), 0) + 1
        if self._clock() >= self._redis_again_at:
            try:
                counted = max(counted, await self._count_in_redis(f"{_KEY}:{name}:{window}"))
            except (RedisError, OSError, TimeoutError) as exc:
                self._redis_again_at = self._clock() + _RETRY_REDIS_SECONDS
                log.warning("limits.redis_away", error=type(exc).__name__, effect="each gateway counts alone")
        self._here[name, window] = counted
        self._here.move_to_end((name, window))
        if len(self._here) > _COUNTED_HERE:
            self._here.popitem(last=False)
        return counted

    async def _count_in_redis(self, key: str) -> int:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.incr(key)
        pipeline.expire(key, 2 * WINDOW_SECONDS)
        return int((await pipeline.execute())[0])

    def _window(self) -> int:
        return int(self._clock() // WINDOW_SECONDS)

    def _left(self) -> int:
        return WINDOW_SECONDS - int(self._clock() % WINDOW_SECONDS)


def too_many(retry_after_seconds: int) -> ProblemError:
    """Return the answer to one attempt too many."""
    return ProblemError(
        ProblemType.TOO_MANY,
        f"Wait {retry_after_seconds} s. If many agents share an address or a token, raise the limits.",
        headers={"Retry-After": str(retry_after_seconds)},
    )
