"""
Repeating calls until the gateway answers, and telling the log once when it does not.

All calls of an agent share one :class:`Link`: it knows which of them are failing, writes one line when
the first begins to and one when the last has stopped, and lets those that wait for their next try go on
as soon as another call came through.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from jetbridge.agent.errors import GatewayError, GatewayUnreachableError
from jetbridge.agent.waiting import wait_at_most

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass
class Backoff:
    """
    Growing pauses between tries: exponential, capped, with full jitter.

    Full jitter (anything between nothing and the limit) spreads the agents of a site best when they
    all lost the same gateway at the same moment. Not tenacity: its wait cannot be cut short when
    another call finds the gateway back, and this is all that would be left of it.
    """

    base_seconds: float = 0.5
    cap_seconds: float = 15.0
    tries: int = field(default=0, init=False)

    def next_seconds(self) -> float:
        """Return the next pause. The exponent is limited, because a float overflows after 1024 tries."""
        limit = min(self.cap_seconds, self.base_seconds * 2.0 ** min(self.tries, 32))
        self.tries += 1
        return random.uniform(0.0, limit)  # noqa: S311 - jitter, not a secret


class Link:
    """The connection to the gateway as the calls of one agent see it."""

    def __init__(self, backoff: Callable[[], Backoff] = Backoff) -> None:
        self._backoff = backoff
        self._failing: dict[object, str] = {}
        self._lost_since: float | None = None
        self._came_through = asyncio.Event()

    async def until_answered(
        self, operation: str, call: Callable[[], Awaitable[T]], longest_pause_seconds: float = float("inf")
    ) -> T:
        """
        Await ``call()`` again and again while its error says that may help.

        Returns its answer, or raises the first :class:`GatewayError` that is final. ``operation`` names
        it in the log.
        """
        this_call = object()
        backoff = self._backoff()
        backoff.cap_seconds = min(backoff.cap_seconds, longest_pause_seconds)
        try:
            while True:
                try:
                    answer = await call()
                except GatewayError as error:
                    if not error.may_retry:
                        self._answered(this_call)
                        raise
                    self._failed(this_call, operation, error)
                    await self._pause(backoff.next_seconds(), error)
                else:
                    self._answered(this_call)
                    return answer
        finally:
            self._failing.pop(this_call, None)

    def _failed(self, this_call: object, operation: str, error: GatewayError) -> None:
        self._failing[this_call] = operation
        if self._lost_since is None:
            self._lost_since = time.monotonic()
            log.warning("gateway connection lost; trying again", operation=operation, reason=str(error))

    def _answered(self, this_call: object) -> None:
        self._failing.pop(this_call, None)
        if self._lost_since is None:
            return
        # Those who wait hold the old event; whoever begins to wait from now on gets a new one.
        self._came_through.set()
        self._came_through = asyncio.Event()
        if not self._failing:
            seconds = round(time.monotonic() - self._lost_since, 1)
            self._lost_since = None
            log.info("gateway connection restored", after_seconds=seconds)

    async def _pause(self, seconds: float, error: GatewayError) -> None:
        if not isinstance(error, GatewayUnreachableError):
            # The gateway is there and asked for patience: that others come through changes nothing.
            await asyncio.sleep(seconds)
            return
        await wait_at_most(self._came_through, seconds)
