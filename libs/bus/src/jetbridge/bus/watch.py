"""
Every entry of a bucket, the end of what was there, then the changes.

Not ``KeyValue.watch`` of nats-py (2.15): it takes a bucket for empty whose only entry is on its way to it at
that moment, so that a token would be unknown or a lease lost that is there. And its consumers stay for five
minutes, of which a stream has 1,000 at most; after that no service could watch the bucket.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DeliverPolicy

INACTIVE_SECONDS = 30.0
"""After that the server drops the consumer of a watch that was lost with its process or its link."""

_CLOSE_SECONDS = 1.0

_DELETED = ("KV-Operation", "Nats-Marker-Reason")
"""Headers of a message that says that a key is gone: by a client, or by the server because of its age."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was written last under a key. ``value`` is empty when it was deleted, or not asked for."""

    key: str
    value: bytes
    revision: int
    written_at: datetime
    deleted: bool


class BucketWatch:
    """An open watch; to be closed, or its consumer stays for a while."""

    def __init__(
        self,
        js: JetStreamContext,
        name: str,
        sub: JetStreamContext.PushSubscription,
        arrived: asyncio.Queue[Msg],
    ) -> None:
        """Use :meth:`open` instead."""
        self._js = js
        self._name = name
        self._sub = sub
        self._arrived = arrived
        self._consumer: str | None = None
        self._reading = True
        self._end_is_next = False

    @classmethod
    async def open(cls, js: JetStreamContext, name: str, *, headers_only: bool = False) -> BucketWatch:
        """Begin with the last entry of every key of bucket ``name``; raises ``nats.errors.Error``."""
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        sub = await js.subscribe(
            f"$KV.{name}.>",
            stream=f"KV_{name}",
            cb=arrived.put,
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            headers_only=headers_only,
            inactive_threshold=INACTIVE_SECONDS,
        )
        watch = cls(js, name, sub, arrived)
        try:
            await watch._look_whether_empty()
        except BaseException:
            await watch.close()
            raise
        return watch

    async def _look_whether_empty(self) -> None:
        """Ask how much there was: what is delivered by now counts, whether it has arrived or not."""
        consumer = await self._sub.consumer_info()
        self._consumer = consumer.name
        delivered = consumer.delivered.consumer_seq if consumer.delivered else 0
        self._end_is_next = not delivered and not consumer.num_pending

    async def next(self, seconds: float) -> Entry | None:
        """
        Return the next entry, and None once, where all that was there at the beginning has been returned.

        Raises ``TimeoutError`` when nothing comes for that long.
        """
        if self._reading and self._end_is_next:
            self._reading = False
            return None
        async with asyncio.timeout(seconds):  # nats-py's own wait swallows a cancellation now and then
            message = await self._arrived.get()
        about = message.metadata
        self._end_is_next = about.num_pending == 0
        headers = message.headers or {}
        return Entry(
            key=message.subject.removeprefix(f"$KV.{self._name}."),
            value=message.data,
            revision=about.sequence.stream,
            written_at=about.timestamp,
            deleted=any(name in headers for name in _DELETED),
        )

    async def close(self) -> None:
        """Stop watching. Without a link the server finds out by itself."""
        with suppress(NatsError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._sub.unsubscribe()
                if self._consumer:
                    await self._js.delete_consumer(f"KV_{self._name}", self._consumer)
