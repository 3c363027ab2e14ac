"""Where a watch says that all that was there has been read."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from nats.js.errors import NotFoundError

from jetbridge.bus.watch import BucketWatch


class Stream:
    """As much of a JetStream context and its subscription as a watch uses, in which messages arrive late."""

    def __init__(self, *, delivered, pending):
        self.delivered, self.pending = delivered, pending
        self.deleted, self.open = [], True

    async def subscribe(self, _subject, *, cb, **_options):
        self.arrive = cb
        return self

    async def consumer_info(self):
        delivered = SimpleNamespace(consumer_seq=self.delivered)
        return SimpleNamespace(name="ephemeral", num_pending=self.pending, delivered=delivered)

    async def unsubscribe(self):
        self.open = False

    async def delete_consumer(self, stream, consumer):
        self.deleted.append((stream, consumer))

    async def message(self, key, pending, headers=None):
        about = SimpleNamespace(
            num_pending=pending, sequence=SimpleNamespace(stream=7), timestamp=datetime.now(UTC)
        )
        message = SimpleNamespace(subject=f"$KV.b.{key}", data=b"{}", headers=headers, metadata=about)
        await self.arrive(message)


async def test_a_record_that_is_on_its_way_is_waited_for():
    stream = Stream(delivered=1, pending=0)
    watch = await BucketWatch.open(stream, "b")
    with pytest.raises(TimeoutError):
        await watch.next(0)
    await stream.message("k", pending=0)
    entry = await watch.next(1)
    assert (entry.key, entry.value, entry.revision, entry.deleted) == ("k", b"{}", 7, False)
    assert await watch.next(0) is None


async def test_an_empty_bucket_is_read_at_once_and_its_end_is_said_once():
    stream = Stream(delivered=0, pending=0)
    watch = await BucketWatch.open(stream, "b")
    assert await watch.next(0) is None
    with pytest.raises(TimeoutError):
        await watch.next(0)
    await stream.message("k", pending=0, headers={"KV-Operation": "DEL"})
    assert (await watch.next(0)).deleted
    with pytest.raises(TimeoutError):
        await watch.next(0)


async def test_the_end_comes_after_the_last_record():
    stream = Stream(delivered=0, pending=2)
    watch = await BucketWatch.open(stream, "b")
    for key, left in (("a", 1), ("b", 0), ("c", 0)):
        await stream.message(key, pending=left)
    found = [await watch.next(0) for _ in range(4)]
    assert [entry and entry.key for entry in found] == ["a", "b", None, "c"]


async def test_it_leaves_no_consumer_behind():
    stream = Stream(delivered=0, pending=0)
    watch = await BucketWatch.open(stream, "b")
    await watch.close()
    assert (stream.open, stream.deleted) == (False, [("KV_b", "ephemeral")])


async def test_a_consumer_that_cannot_be_asked_about_is_not_left_open():
    stream = Stream(delivered=0, pending=0)

    async def lost():
        raise NotFoundError

    stream.consumer_info = lost
    with pytest.raises(NotFoundError):
        await BucketWatch.open(stream, "b")
    assert not stream.open


async def test_a_cancellation_ends_it():
    watch = await BucketWatch.open(Stream(delivered=1, pending=0), "b")
    waiting = asyncio.create_task(watch.next(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
