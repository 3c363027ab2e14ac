"""The wish that an agent stops: by signals, or by orders of the plane."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import structlog

from jetbridge.agent.waiting import wait_at_most
from jetbridge.contracts.api import Orders

log = structlog.get_logger(__name__)

NEVER = float("inf")


class StopRequests:
    """
    What was asked for so far. ``drain`` and ``hurry`` are set once and stay.

    The first SIGTERM or SIGINT means drain, and so does an order of the plane; a second signal means hurry.
    An order is no signal: a SIGTERM that follows it, as when a pod is deleted, is still the first.
    """

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.hurry = asyncio.Event()
        self._signalled_at = NEVER
        self._hand_over_at = NEVER
        self._cordoned = False
        self._sooner = asyncio.Event()

    def listen(self) -> None:
        """
        Take over SIGTERM and SIGINT, for the running loop and until the process ends.

        asyncio's own handlers end with the loop: a second signal would kill a process that is just about to
        exit with 0.
        """
        loop = asyncio.get_running_loop()

        def note(_number: int, _frame: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the agent
                loop.call_soon_threadsafe(self.request)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)

    def request(self) -> None:
        """Note one request to stop."""
        if self._signalled_at < NEVER:
            self.hurry.set()
        self._signalled_at = min(self._signalled_at, time.monotonic())
        self._sooner.set()
        self.drain.set()

    def ordered(self, orders: Orders | None) -> None:
        """Take in what an answer of the gateway says; None means that there are no orders."""
        cordoned = orders is not None and orders.cordoned
        if cordoned != self._cordoned:
            self._cordoned = cordoned
            log.info("cordoned: no new work is offered" if cordoned else "uncordoned: work is offered again")
        if orders is not None and orders.drain:
            # Said in each answer, always as seconds from then: what took longest to arrive is the latest.
            self._hand_over_at = min(self._hand_over_at, time.monotonic() + orders.hand_over_in_seconds)
            self._sooner.set()
            self.drain.set()

    @property
    def was_ordered(self) -> bool:
        """Whether the plane ordered the drain."""
        return self._hand_over_at < NEVER

    async def time_is_up(self, drain_seconds: float) -> None:
        """Wait until a drain has lasted long enough: ``drain_seconds`` from the signal, or as ordered."""
        while (left := self._ends_at(drain_seconds) - time.monotonic()) > 0:
            self._sooner.clear()
            await wait_at_most(self._sooner, left)

    def _ends_at(self, drain_seconds: float) -> float:
        return min(self._hand_over_at, self._signalled_at + drain_seconds)
