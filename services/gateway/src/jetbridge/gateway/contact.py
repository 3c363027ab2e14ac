"""
Whether this gateway is in touch with NATS, and so whether its mirrors may be believed.

A gateway cut off from NATS while the rest of the plane goes on must not keep an agent's lease alive: the
plane may give the work to somebody else. So heartbeats need contact now (``in_touch``), and a running
task's calls are passed on only as long as no lease can have been moved yet (``within``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from nats.errors import Error as NatsError

from jetbridge.gateway.health import CheckFailedError

log = structlog.get_logger(__name__)

PROBE_SECONDS = 1.0
"""How often NATS is asked; a request each second is nothing to it."""

_SILENCE_SECONDS = 5.0
"""Without an answer for this long there is no contact: longer than a server's restart hiccup."""


class Contact:
    """Remembers when JetStream answered last."""

    def __init__(
        self, probe: Callable[[], Awaitable[object]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``probe`` is one cheap JetStream request that raises when nobody answers."""
        self._probe = probe
        self._clock = clock
        self._last = clock()
        self._reported = True

    def within(self, seconds: float) -> bool:
        """Say whether JetStream answered in the last ``seconds``."""
        return self._clock() - self._last < seconds

    @property
    def in_touch(self) -> bool:
        """Say whether JetStream answers now."""
        return self.within(_SILENCE_SECONDS)

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(PROBE_SECONDS)

    async def check(self) -> bool:
        """Probe once and say whether it was answered."""
        try:
            await self._probe()
        except (NatsError, TimeoutError, OSError):
            self._report(in_touch=self.in_touch)
            return False
        self._last = self._clock()
        self._report(in_touch=True)
        return True

    async def require(self) -> None:
        """Probe once; raises :class:`CheckFailedError` when nobody answers."""
        if not await self.check():
            raise CheckFailedError("JetStream does not answer")

    def _report(self, *, in_touch: bool) -> None:
        if in_touch == self._reported:
            return
        self._reported = in_touch
        if in_touch:
            log.info("gateway.nats_back")
        else:
            log.warning("gateway.nats_away", effect="heartbeats, accepts and reports answer 503")
