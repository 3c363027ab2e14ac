"""A bucket in memory follows the bucket, through deletions and a server that was away."""

import asyncio
import uuid
from contextlib import suppress

import pytest

from jetbridge.bus.errors import BusError
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.subjects import ORDERS_BUCKET


@pytest.fixture
async def mirror(bus, store):
    mirror = BucketMirror(bus, store.bucket)
    task = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.ready.wait(), 15)
    yield mirror
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_sees_writes_and_deletions(store, workload, mirror, eventually):
    changes = []
    mirror.on_change(lambda key, record: changes.append((key, record and record.record.state)))
    new = workload()
    submission = await store.submit(new)
    await eventually(lambda: mirror.get(new.workload_id))
    assert mirror.get(new.workload_id).revision == submission
    await store.remove(new.workload_id)
    await eventually(lambda: mirror.get(new.workload_id) is None)
    assert [change for change in changes if change[0] == new.workload_id] == [
        (new.workload_id, "submitted"),
        (new.workload_id, None),
    ]


async def test_starts_with_what_is_there(bus, store, workload):
    new = workload()
    await store.submit(new)
    mirror = BucketMirror(bus, store.bucket)
    task = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.ready.wait(), 15)
    assert mirror.get(new.workload_id)
    task.cancel()


async def test_own_writes_are_there_at_once_and_older_news_changes_nothing(bus, store, workload, eventually):
    mirror = BucketMirror(bus, store.bucket, own_writes=True)
    task = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.ready.wait(), 15)
    changes = []
    mirror.on_change(lambda key, record: changes.append((key, record and record.revision)))
    new = workload()
    for _ in range(20):  # each deletion's news may arrive before or after the next write
        submission = await store.submit(new)
        assert mirror.get(new.workload_id).revision == submission
        await store.remove(new.workload_id)
    last = await store.submit(new)
    other = workload()
    await (await WorkloadStore.open(bus)).submit(other)  # its news comes behind all the rest
    await eventually(lambda: mirror.get(other.workload_id))
    assert mirror.get(new.workload_id).revision == last
    revisions = [revision for key, revision in changes if key == new.workload_id and revision]
    assert revisions == sorted(set(revisions)), "nothing twice, nothing backwards"
    task.cancel()


async def test_a_record_nobody_can_read_is_left_out_and_does_not_stop_the_rest(
    store, workload, mirror, eventually
):
    unreadable = "00000000-0000-0000-0000-00000000dead"
    await store.bucket.kv.put(unreadable, b"not a record")
    new = workload()
    await store.submit(new)
    await eventually(lambda: mirror.get(new.workload_id))
    assert mirror.get(unreadable) is None
    await store.bucket.kv.delete(unreadable)  # other tests look at the same bucket


async def test_catches_up_after_the_server_was_away(store, workload, mirror, eventually, nats_server):
    if not nats_server.restartable:
        pytest.skip("the NATS server belongs to somebody else")
    gone, new = workload(), workload()
    await store.submit(gone)
    await eventually(lambda: mirror.get(gone.workload_id))
    nats_server.kill()
    nats_server.start()
    for request in (lambda: store.remove(gone.workload_id), lambda: store.submit(new)):
        async with asyncio.timeout(30):
            while True:
                with suppress(BusError):
                    await request()
                    break
                await asyncio.sleep(0.1)
    await eventually(lambda: mirror.get(gone.workload_id) is None and mirror.get(new.workload_id), 30)


async def test_all_of_a_bucket_with_one_record_is_never_nothing(bus):
    store = await OrderStore.open(bus)
    agent = f"a-{uuid.uuid4().hex[:8]}"
    await store.cordon(agent)
    for _ in range(50):
        found = await asyncio.gather(*(store.bucket.all() for _ in range(4)))
        assert all(agent in records for records in found)
    await store.uncordon(agent)


async def test_reading_a_bucket_leaves_no_consumer_behind(bus):
    store = await OrderStore.open(bus)
    before = await bus.js.consumers_info(f"KV_{ORDERS_BUCKET}")
    for _ in range(5):
        await store.bucket.all()
    after = await bus.js.consumers_info(f"KV_{ORDERS_BUCKET}")
    assert {one.name for one in after} <= {one.name for one in before}
