"""
A KV bucket kept in memory by watching it.

Reads cost nothing and lag the bucket by milliseconds. After a lost connection the watch starts over and
the whole bucket is read again, so no change is missed; keys that vanished meanwhile are reported as
deleted. Until the first full read ``ready`` is not set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec
import structlog
from nats.errors import Error as NatsError

from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.bus.watch import Entry

R = TypeVar("R", bound=msgspec.Struct)
OnChange = Callable[[str, "Versioned[R] | None"], None]

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 0.5
"""
How often a silent watch looks whether its link is still the same, and the delay before a failed one is
tried again. Until it notices a new link it misses what changes, a revoked token for example.
"""


class BucketMirror(Generic[R]):
    """The bucket's records by key, as of the last change seen."""

    def __init__(self, bus: Bus, bucket: RecordBucket[R], *, own_writes: bool = False) -> None:
        """
        Prepare a mirror; :meth:`run` fills it and keeps it.

        With ``own_writes`` it has what was written through ``bucket`` as soon as the write is answered,
        and its listeners are called then.
        """
        self._bus = bus
        self._bucket = bucket
        self._records: dict[str, Versioned[R]] = {}
        self._listeners: list[OnChange[R]] = []
        self.ready = asyncio.Event()
        if own_writes:
            bucket.on_write(lambda key, record: self._change(key, record, record.revision))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> Versioned[R] | None:
        """Return the record as last seen."""
        return self._records.get(key)

    def items(self) -> Iterator[tuple[str, Versioned[R]]]:
        """Iterate over a snapshot of all records."""
        return iter(list(self._records.items()))

    def on_change(self, listener: OnChange[R]) -> None:
        """Call ``listener(key, record or None)`` on every change, in the loop; it must not block."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._watch_once()
            except (NatsError, TimeoutError, OSError) as exc:
                log.warning("mirror.watch_failed", bucket=self._bucket.name, error=type(exc).__name__)
            self.ready.clear()
            await asyncio.sleep(_CHECK_SECONDS)

    async def _watch_once(self) -> None:
        reconnects = self._reconnects()
        unseen: set[str] | None = set(self._records)
        async with self._bucket.watching() as watch:
            while self._reconnects() == reconnects:
                with suppress(TimeoutError):  # nothing new: look whether the link is still the same
                    unseen = self._take(await watch.next(_CHECK_SECONDS), unseen)

    def _take(self, entry: Entry | None, unseen: set[str] | None) -> set[str] | None:
        if entry is None:  # the end of the first full read: what it did not contain is gone
            for key in unseen or ():
                self._change(key, None, self._records[key].revision)
            self.ready.set()
            return None
        if unseen is not None:
            unseen.discard(entry.key)
        self._change(entry.key, self._bucket.read(entry), entry.revision)
        return unseen

    def _change(self, key: str, record: Versioned[R] | None, revision: int) -> None:
        """Take in a record or its deletion unless something newer is known."""
        before = self._records.get(key)
        if record is None:
            if before is None or before.revision > revision:
                return
            del self._records[key]
        elif before and before.revision >= revision:
            return
        else:
            self._records[key] = record
        for listener in self._listeners:
            listener(key, record)

    def _reconnects(self) -> int:
        return int(self._bus.client.stats["reconnects"])
