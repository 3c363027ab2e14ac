"""Reading presence, and telling whether silence would prove anything."""

from __future__ import annotations

import time
from collections.abc import Mapping

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from jetbridge.bus.mirror import BucketMirror
from jetbridge.contracts.presence import GATEWAY_BEAT_SECONDS, GATEWAYS_KEY, PRESENCE_KEY, Beat
from jetbridge.sentinel.silence import Look

log = structlog.get_logger(__name__)

GATEWAY_SILENCE_SECONDS = 5 * GATEWAY_BEAT_SECONDS
"""Without any gateway's beat for this long, the count of silence starts over when one is back."""


class Lookout:
    """Looks at Redis, one pipelined read each time, and at the beats that Redis did not take."""

    def __init__(self, client: redis.Redis, beats: BucketMirror[Beat]) -> None:
        """``beats`` is kept by its own task."""
        self._client = client
        self._beats = beats
        self._gateways: Mapping[str, float] = {}
        self._gateway_heard_at = float("-inf")
        self._reported = False

    async def look(self, *, nats_answers: bool) -> Look:
        """Return what is there now; never raises for a Redis that is away."""
        try:
            beats, gateways, store = await self._read()
        except (RedisError, OSError, TimeoutError) as exc:
            self._report(exc)
            return Look(at=time.monotonic(), beats=None, hearing=False)
        self._report(None)
        at = time.monotonic()
        if any(self._gateways.get(name) != beat for name, beat in gateways.items()):
            self._gateway_heard_at = at
        self._gateways = gateways
        hearing = nats_answers and at - self._gateway_heard_at < GATEWAY_SILENCE_SECONDS
        return Look(
            at=at,
            beats=self._with_others(beats),
            hearing=hearing,
            heard_until=self._gateway_heard_at,
            store=store,
        )

    def _with_others(self, beats: dict[str, float]) -> dict[str, tuple[float, int]]:
        """Pair each member's score with the revision of its beat in NATS: a change of either is a beat."""
        others = {member: entry.revision for member, entry in self._beats.items()}
        members = beats.keys() | others.keys()
        return {member: (beats.get(member, 0.0), others.get(member, 0)) for member in members}

    async def _read(self) -> tuple[dict[str, float], dict[str, float], str]:
        pipeline = self._client.pipeline(transaction=True)
        pipeline.zrange(PRESENCE_KEY, 0, -1, withscores=True)
        pipeline.zrange(GATEWAYS_KEY, 0, -1, withscores=True)
        pipeline.info("server")
        presence, gateways, info = await pipeline.execute()
        return _scores(presence), _scores(gateways), str(info["run_id"])

    async def forget(self, member: str) -> None:
        """Remove a member that is gone for good; failing to is harmless."""
        try:
            await self._client.zrem(PRESENCE_KEY, member)
        except (RedisError, OSError, TimeoutError) as exc:
            log.info("sentinel.forget_failed", member=member, error=type(exc).__name__)

    def _report(self, error: Exception | None) -> None:
        away = error is not None
        if away != self._reported:
            self._reported = away
            if error is not None:
                log.warning("sentinel.redis_away", error=type(error).__name__, effect="no verdicts meanwhile")
            else:
                log.info("sentinel.redis_back")


def _scores(pairs: list[tuple[bytes, float]]) -> dict[str, float]:
    return {name.decode(): score for name, score in pairs}
