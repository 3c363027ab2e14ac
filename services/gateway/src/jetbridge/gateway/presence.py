"""
Presence in Redis: when each agent's process was last heard of, what it said, and who could have heard it.

The sorted sets are described in ``jetbridge.contracts.presence``. ``jetbridge:presence:<agent>`` is a hash
with what the last heartbeat said, for people and dashboards. All of it is volatile: nothing durable depends
on it. An agent is told whether its heartbeat was written, because only then may it count on its leases.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from jetbridge.bus.errors import BusError
from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.api import HeartbeatRequest
from jetbridge.contracts.presence import (
    GATEWAY_BEAT_SECONDS,
    GATEWAYS_KEY,
    PRESENCE_KEY,
    Beat,
    member_of,
)
from jetbridge.contracts.records import AgentRecord
from jetbridge.gateway.contact import Contact
from jetbridge.gateway.metrics import GatewayMetrics

log = structlog.get_logger(__name__)

DETAILS_LIFE_SECONDS = 24 * 3600
"""Details of an agent that never comes back go by themselves; the sorted sets are the sentinel's to tidy."""

_RETRY_SECONDS = 1.0

_RECORD_SECONDS = 2.0
"""How long an agent's answer waits for the write. Later it is told that nothing was recorded."""

Details = dict[Any, Any]
"""Field to value, each text or number; redis-py's own type of it cannot be written without a cast."""


def details_key(agent: str) -> str:
    """Return the key of the hash with an agent's last heartbeat."""
    return f"{PRESENCE_KEY}:{agent}"


class Presence:
    """
    Collects heartbeats and writes them from one task, all that wait in one pipeline.

    Of several heartbeats of one process only the newest is written. While Redis is away they go to a bucket
    of NATS, which is slower and enough: what counts is that every sentinel can see them.
    """

    def __init__(
        self, client: redis.Redis, beats: RecordBucket[Beat], contact: Contact, metrics: GatewayMetrics
    ) -> None:
        """Write to ``client``, and to ``beats`` what it does not take."""
        self._client = client
        self._beats = beats
        self._contact = contact
        self._metrics = metrics
        self._gateway = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._heard: dict[str, int] = {}
        self._details: dict[str, Details] = {}
        self._waiting: list[asyncio.Future[bool]] = []
        self._something = asyncio.Event()
        self._reported = False

    async def record(self, agent: AgentRecord, heartbeat: HeartbeatRequest) -> bool:
        """Have a heartbeat written, and say whether it was."""
        self._note(agent, heartbeat)
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        self._something.set()
        try:
            return await asyncio.wait_for(written, _RECORD_SECONDS)
        except TimeoutError:
            return False

    def _note(self, agent: AgentRecord, heartbeat: HeartbeatRequest) -> None:
        now = _milliseconds()
        self._heard[member_of(agent.name, agent.instance)] = now
        self._details[agent.name] = {
            "at_ms": now,
            "instance": agent.instance,
            "role": agent.role,
            "site": agent.site,
            "slots": agent.slots,
            "free_slots": heartbeat.free_slots,
            "leases": len(heartbeat.leases),
            "draining": int(heartbeat.draining),
        }

    async def run(self) -> None:
        """Write heartbeats, and that this gateway takes them, until cancelled."""
        try:
            while True:
                waiting, self._waiting = self._waiting, []
                heard, self._heard = self._heard, {}
                written = await self._write(heard)
                recorded = written or await self._write_beats(heard)
                for answer in waiting:
                    if not answer.done():  # whoever asked may have gone
                        answer.set_result(recorded)
                if not written:
                    await asyncio.sleep(_RETRY_SECONDS)
                await self._wait()
        finally:
            await self._leave()

    async def _wait(self) -> None:
        """Wait for a heartbeat, or until it is time for the gateway's own beat."""
        try:
            async with asyncio.timeout(GATEWAY_BEAT_SECONDS):
                await self._something.wait()
        except TimeoutError:
            return
        self._something.clear()

    async def _write_beats(self, heard: Mapping[str, int]) -> bool:
        beats = (self._beats.put(member, Beat(at_ms=at)) for member, at in heard.items())
        try:
            await asyncio.gather(*beats)
        except BusError as exc:
            log.warning("presence.not_recorded", error=str(exc), agents=len(heard))
            return False
        return True

    async def _write(self, heard: Mapping[str, int]) -> bool:
        details, self._details = self._details, {}
        pipeline = self._client.pipeline(transaction=False)
        if self._contact.in_touch:  # without NATS no heartbeat is taken, so silence means nothing
            pipeline.zadd(GATEWAYS_KEY, {self._gateway: _milliseconds()})
        if heard:
            pipeline.zadd(PRESENCE_KEY, dict(heard))
        for agent, fields in details.items():
            pipeline.hset(details_key(agent), mapping=fields)
            pipeline.expire(details_key(agent), DETAILS_LIFE_SECONDS)
        try:
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as exc:
            self._failed(exc)
            return False
        if self._reported:
            self._reported = False
            log.info("presence.redis_back")
        return True

    def _failed(self, error: Exception) -> None:
        self._metrics.presence_errors.inc()
        if not self._reported:
            self._reported = True
            log.warning("presence.redis_away", error=type(error).__name__, effect="heartbeats go to NATS")

    async def _leave(self) -> None:
        try:
            await self._client.zrem(GATEWAYS_KEY, self._gateway)
        except (RedisError, OSError, TimeoutError) as exc:
            log.info("presence.not_left", error=type(exc).__name__)

    async def ping(self) -> None:
        """Raise when Redis does not answer."""
        await self._client.ping()


def _milliseconds() -> int:
    return int(time.time() * 1000)
