"""
When and from where tokens are used, for people who decide which one can go.

A request only notes it in memory; a side task writes, and each token at most once a minute. What a gateway
had not written when it died is lost: nothing is decided by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from jetbridge.bus.errors import BusError
from jetbridge.bus.token_uses import TokenUseStore
from jetbridge.contracts.records import TokenUseRecord

log = structlog.get_logger(__name__)

WRITE_SECONDS = 5.0
"""How often the side task looks for something to write."""

SAME_TOKEN_SECONDS = 60.0


class TokenUse:
    """Remembers uses until they are written."""

    def __init__(self, store: TokenUseStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._unwritten: dict[str, TokenUseRecord] = {}
        self._written_at: dict[str, float] = {}

    def note(self, token_id: str, address: str) -> None:
        """Remember that a token was used now. Never waits."""
        if self._clock() - self._written_at.get(token_id, float("-inf")) >= SAME_TOKEN_SECONDS:
            self._unwritten[token_id] = TokenUseRecord(used_at=datetime.now(UTC), address=address)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what is remembered; what cannot be written is forgotten."""
        noted, self._unwritten = self._unwritten, {}
        for token_id, use in noted.items():
            self._written_at[token_id] = self._clock()
            try:
                await self._store.put(token_id, use)
            except BusError as exc:
                log.info("token_use.not_written", error=str(exc), tokens=len(noted))
                return
