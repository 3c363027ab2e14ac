"""Pulling work: most urgent first, nothing stuck, nothing lost when the server goes away."""

import asyncio
from contextlib import suppress

import pytest

from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError, TopologyError
from jetbridge.bus.lanes import Lane
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.subjects import Band


def bands(messages):
    return [Band(int(message.subject[-1])) for message in messages]


async def test_urgent_work_overtakes_a_backlog(bus, store, queue, workload):
    for weight in (1, 1, 20, 500, 1):
        await store.submit(workload(weight))
    async with Lane(bus, queue) as lane:
        first, rest = await lane.take(2), await lane.take(10)
    assert bands(first) == [Band.URGENT, Band.HIGH]
    assert bands(rest) == [Band.NORMAL] * 3


async def test_waits_for_work_and_gets_it(bus, store, queue, workload):
    async with Lane(bus, queue) as lane:
        waiting = asyncio.create_task(lane.take(5))
        while not lane._requests:
            await asyncio.sleep(0)
        new = workload(50)
        await store.submit(new)
        (message,) = await asyncio.wait_for(waiting, 15)
    assert new.workload_id.encode() in message.data


async def test_work_that_comes_when_nobody_wants_it_goes_to_the_next_who_does(bus, store, queue, workload):
    async with Lane(bus, queue) as idle, Lane(bus, queue) as busy:
        waiting = asyncio.create_task(idle.take(5))
        while len(idle._requests) < len(Band):
            await asyncio.sleep(0.01)
        waiting.cancel()
        await idle.release()
        await store.submit(workload())
        (message,) = await asyncio.wait_for(busy.take(5), 8)  # well before the offer would time out
        await message.ack()


async def test_two_gateways_share_a_lane_and_each_message_goes_to_one(bus, store, queue, workload):
    ids = set()
    async with Lane(bus, queue) as one, Lane(bus, queue) as other:
        for _ in range(20):
            await store.submit(workload())
        while len(ids) < 20:
            for lane in (one, other):
                for message in await asyncio.wait_for(lane.take(3), 15):
                    assert message.headers["Nats-Msg-Id"] not in ids
                    ids.add(message.headers["Nats-Msg-Id"])
                    await message.ack()
                if len(ids) == 20:
                    break


async def test_refused_work_comes_back_at_once(bus, store, queue, workload):
    await store.submit(workload())
    async with Lane(bus, queue) as lane:
        (first,) = await lane.take(1)
        await first.nak()
        (again,) = await asyncio.wait_for(lane.take(1), 8)
    assert again.metadata.num_delivered == 2


async def test_a_lane_without_the_stream_says_what_to_run(own_nats_url):
    async with open_bus(BusSettings(url=own_nats_url), "tests") as bare:
        with pytest.raises(TopologyError, match="jetbridge bus apply"):
            async with Lane(bare, "default"):
                pass


async def test_work_goes_on_after_the_server_was_away(bus, store, queue, workload, nats_server):
    if not nats_server.restartable:
        pytest.skip("the NATS server belongs to somebody else")
    async with Lane(bus, queue) as lane:
        waiting = asyncio.create_task(lane.take(1))
        while len(lane._requests) < len(Band):
            await asyncio.sleep(0.01)
        nats_server.kill()
        nats_server.start()
        new = workload()
        async with asyncio.timeout(30):
            while True:
                with suppress(BusError):
                    await store.submit(new)
                    break
                await asyncio.sleep(0.1)
        messages = await asyncio.wait_for(waiting, 30)
    assert new.workload_id.encode() in messages[0].data
