"""
Pulling work from the lanes, most urgent band first.

nats-py's own fetch cannot ask several consumers at once and loses track of requests it gives up on; here
one inbox serves all requests of a lane, and a message that arrives when nobody wants it any more goes
back at once instead of waiting out its ``ack_wait``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import TopologyError
from jetbridge.bus.kv import answered
from jetbridge.bus.topology import lane_consumer
from jetbridge.contracts.subjects import WORK_STREAM, Band, band_of, work_consumer

WAIT_SECONDS = 5.0
"""Life of one waiting pull request. Short, so that one lost with a connection is soon asked again."""

_ANSWER_SECONDS = 2.0
"""How long to wait for the end of a request that does not wait."""


@dataclass
class _Request:
    """One pull request on its way; ``ended`` is set by its status message or last message."""

    band: Band
    remaining: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Lane:
    """Work of one lane. Use as ``async with``; one :meth:`take` at a time."""

    def __init__(self, bus: Bus, lane: str) -> None:
        """Prepare to pull from ``lane`` (a subject token; see ``subjects.lane_of``)."""
        self._bus = bus
        self._lane = lane
        self._inbox = bus.client.new_inbox()
        self._numbers = itertools.count()
        self._requests: dict[str, _Request] = {}
        self._arrived: dict[Band, deque[Msg]] = {band: deque() for band in Band}
        self._something = asyncio.Event()
        self._wanted = False
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        for band in Band:
            try:
                await answered(self._bus.js.add_consumer(WORK_STREAM, lane_consumer(self._lane, band)))
            except NotFoundError as exc:
                msg = f"NATS has no stream {WORK_STREAM}; run 'jetbridge bus apply' once before the services"
                raise TopologyError(msg) from exc
        self._subscription = await self._bus.client.subscribe(f"{self._inbox}.*", cb=self._receive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()
        if self._subscription and not self._bus.client.is_closed:
            await self._subscription.unsubscribe()

    async def take(self, limit: int) -> list[Msg]:
        """
        Return 1 to ``limit`` messages, waiting until there are some; most urgent bands first.

        Every message must be acknowledged, given back with ``nak`` or will be delivered again after
        ``topology.OFFER_SECONDS``.
        """
        self._wanted = True
        while True:
            if found := self._pop(limit):
                return found
            await self._ask_now(limit)
            if not any(self._arrived.values()):
                await self._ask_and_wait()

    async def release(self) -> None:
        """Say that nobody wants work now: what has arrived, and what still does, goes back at once."""
        self._wanted = False
        for message in self._pop(sum(len(queue) for queue in self._arrived.values())):
            await message.nak()

    def _pop(self, limit: int) -> list[Msg]:
        found: list[Msg] = []
        for queue in self._arrived.values():
            while queue and len(found) < limit:
                found.append(queue.popleft())
        return found

    async def _ask_now(self, limit: int) -> None:
        """Ask band after band for what is there, without waiting for more."""
        missing = limit
        for band in Band:
            request = await self._ask(band, missing, no_wait=True)
            await self._ended(request, _ANSWER_SECONDS)
            missing = limit - sum(len(queue) for queue in self._arrived.values())
            if missing <= 0:
                return

    async def _ask_and_wait(self) -> None:
        """Keep one waiting request per band until the first message of any."""
        self._something.clear()
        waiting = {request.band for request in self._requests.values()}
        for band in Band:
            if band not in waiting:
                await self._ask(band, 1, no_wait=False)
        if any(self._arrived.values()):
            return
        try:
            await asyncio.wait_for(self._something.wait(), WAIT_SECONDS + _ANSWER_SECONDS)
        except TimeoutError:  # the requests were lost with a connection; forget them and ask again
            self._requests.clear()

    async def _ask(self, band: Band, batch: int, *, no_wait: bool) -> _Request:
        request, number = _Request(band, batch), str(next(self._numbers))
        self._requests[number] = request
        body = (
            {"batch": batch, "no_wait": True}
            if no_wait
            else {"batch": batch, "expires": int(WAIT_SECONDS * 1e9)}
        )
        consumer = work_consumer(self._lane, band)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{WORK_STREAM}.{consumer}"
        await answered(
            self._bus.client.publish(subject, json.dumps(body).encode(), reply=f"{self._inbox}.{number}")
        )
        return request

    async def _ended(self, request: _Request, limit_seconds: float) -> None:
        try:
            await asyncio.wait_for(request.ended.wait(), limit_seconds)
        except TimeoutError:
            self._forget(request)

    def _forget(self, request: _Request) -> None:
        for number in [number for number, known in self._requests.items() if known is request]:
            del self._requests[number]

    async def _receive(self, message: Msg) -> None:
        if JetStreamContext.is_status_msg(message):  # addressed to the request's own inbox
            self._end(message.subject.rpartition(".")[2])
            return
        band = band_of(message.subject)  # work keeps its own subject
        self._count(band)
        if not self._wanted:
            await message.nak()
            return
        self._arrived[band].append(message)
        self._something.set()

    def _count(self, band: Band) -> None:
        """Count a message towards the oldest request of its band: JetStream serves them in order."""
        for number, request in self._requests.items():
            if request.band is band:
                request.remaining -= 1
                if request.remaining <= 0:
                    self._end(number)
                return

    def _end(self, number: str) -> None:
        if request := self._requests.pop(number, None):
            request.ended.set()
        self._something.set()
