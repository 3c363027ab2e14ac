"""The sentinel on real Redis and NATS: verdicts, and no verdict when nothing could be heard."""

import asyncio
from datetime import UTC, datetime

import pytest

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.beats import open_beats
from jetbridge.bus.errors import ConflictError
from jetbridge.bus.fleet import AgentState
from jetbridge.bus.health import HealthStore, health_key
from jetbridge.bus.orders import OrderStore
from jetbridge.contracts.presence import PRESENCE_KEY, Beat
from jetbridge.contracts.records import AgentRecord, Health, HealthRecord


def of(health, agent):
    entry = health.get(health_key(agent[0], agent[1]))
    return entry.record.health if entry else None


async def test_an_agent_goes_from_healthy_to_suspect_to_lost(
    start_sentinel, presence, running, agent, health, eventually
):
    await start_sentinel()
    seen = []
    health.on_change(
        lambda key, entry: seen.append(entry.record.health) if entry and key.startswith(agent[0]) else None
    )
    running(presence.keep_beating())  # the gateway goes on
    beating = running(presence.keep_beating(agent[2]))
    await eventually(lambda: of(health, agent) is Health.HEALTHY)
    beating.cancel()
    await eventually(lambda: of(health, agent) is Health.LOST)
    assert seen == [Health.HEALTHY, Health.SUSPECT, Health.LOST]


async def test_each_verdict_is_a_trace_of_its_own_with_its_event_below(
    start_sentinel, presence, running, agent, spans, eventually
):
    await start_sentinel()
    running(presence.keep_beating())
    await presence.beat(agent[2])
    await eventually(lambda: spans.about(agent=agent[0], health=Health.LOST.value))
    verdicts = spans.about(agent=agent[0])
    assert {(one.name, one.parent) for one in verdicts} == {("sentinel.verdict", None)}
    healths = [one.attributes["jetbridge.health"] for one in verdicts]
    assert healths == [Health.HEALTHY, Health.SUSPECT, Health.LOST]
    assert len({one.context.trace_id for one in verdicts}) == len(verdicts)
    for one in verdicts:
        assert spans.below(one) == ["send event.agent.health-changed"]


async def test_it_is_healthy_again_when_it_is_heard_again(
    start_sentinel, presence, running, agent, health, eventually
):
    await start_sentinel()
    running(presence.keep_beating())
    await presence.beat(agent[2])
    await eventually(lambda: of(health, agent) is Health.LOST)
    running(presence.keep_beating(agent[2]))
    await eventually(lambda: of(health, agent) is Health.HEALTHY)


async def test_without_a_gateway_silence_proves_nothing(
    start_sentinel, presence, running, agent, health, eventually
):
    await start_sentinel()
    beating = running(presence.keep_beating(agent[2]))
    await eventually(lambda: of(health, agent) is Health.HEALTHY)
    beating.cancel()  # agent and gateway are silent together
    await asyncio.sleep(8)  # far more than the lease: nothing must happen, so there is no event to wait for
    assert of(health, agent) in (Health.HEALTHY, Health.SUSPECT)


async def test_two_sentinels_agree_and_decide_each_change_once(
    start_sentinel, presence, running, agent, health, bus, eventually
):
    await start_sentinel()
    await start_sentinel()
    changes = []
    health.on_change(
        lambda key, entry: changes.append(entry.record.health) if key.startswith(agent[0]) else None
    )
    running(presence.keep_beating())
    beating = running(presence.keep_beating(agent[2]))
    await eventually(lambda: of(health, agent) is Health.HEALTHY)
    beating.cancel()
    await eventually(lambda: of(health, agent) is Health.LOST)
    await bus.client.flush()
    assert changes == [Health.HEALTHY, Health.SUSPECT, Health.LOST]


async def test_a_redis_that_came_back_empty_proves_nothing(
    start_sentinel, presence, running, agent, health, redis_server, eventually
):
    if not redis_server.restartable:
        pytest.skip("the Redis server belongs to somebody else")
    await start_sentinel()
    beating = running(presence.keep_beating(agent[2]))
    await eventually(lambda: of(health, agent) is Health.HEALTHY)
    beating.cancel()
    redis_server.kill()
    await asyncio.sleep(3)  # twice the lease
    assert of(health, agent) in (Health.HEALTHY, Health.SUSPECT)
    redis_server.start()
    running(presence.keep_beating(agent[2]))
    await eventually(lambda: of(health, agent) is Health.HEALTHY)


async def test_a_beat_that_redis_did_not_take_counts_as_well(
    start_sentinel, presence, running, agent, health, bus, eventually
):
    await start_sentinel()
    running(presence.keep_beating())  # another gateway, whose Redis works
    beats = await open_beats(bus)

    async def beat_through_nats():
        while True:
            await beats.put(agent[2], Beat(at_ms=1))
            await asyncio.sleep(0.1)

    beating = running(beat_through_nats())
    await eventually(lambda: of(health, agent) is Health.HEALTHY)
    await asyncio.sleep(4)  # more than two leases
    assert of(health, agent) is Health.HEALTHY
    beating.cancel()
    await eventually(lambda: of(health, agent) is Health.LOST)


async def test_an_attested_death_stands(start_sentinel, presence, running, agent, health, bus, eventually):
    dead = HealthRecord(
        agent=agent[0],
        instance=agent[1],
        health=Health.LOST,
        since=datetime.now(UTC),
        reason="its pod ended",
        attested=True,
    )
    await (await HealthStore.open(bus)).change(None, dead)
    await start_sentinel()
    running(presence.keep_beating(agent[2]))
    other = "other/" + agent[1]
    running(presence.keep_beating(other))
    await eventually(lambda: health.get(other))
    assert of(health, agent) is Health.LOST


async def test_of_two_writers_one_loses(bus, agent):
    store = await HealthStore.open(bus)
    record = HealthRecord(agent=agent[0], instance=agent[1], health=Health.HEALTHY, since=datetime.now(UTC))
    await store.change(None, record)
    with pytest.raises(ConflictError):
        await store.change(None, record)


async def test_what_is_wanted_of_an_agent_shows_in_its_state(
    start_sentinel, presence, running, agent, bus, eventually
):
    states = await start_sentinel()
    await put(bus, record_of(agent))
    running(presence.keep_beating(agent[2]))
    await eventually(lambda: states.of(agent[2]) is AgentState.HEALTHY)
    orders = await OrderStore.open(bus)
    await orders.cordon(agent[0])
    await eventually(lambda: states.of(agent[2]) is AgentState.CORDONED)
    await orders.drain(agent[0], agent[1], datetime.now(UTC))
    await eventually(lambda: states.of(agent[2]) is AgentState.DRAINING)
    await orders.uncordon(agent[0])
    await eventually(lambda: states.of(agent[2]) is AgentState.HEALTHY)


async def test_a_goodbye_stands_and_the_agent_is_forgotten_at_once(
    start_sentinel, presence, running, agent, bus, health, eventually
):
    states = await start_sentinel()
    await put(bus, record_of(agent))
    running(presence.keep_beating())
    await presence.beat(agent[2])
    await eventually(lambda: of(health, agent) is Health.HEALTHY)
    goodbye = HealthRecord(
        agent=agent[0], instance=agent[1], health=Health.GONE, since=datetime.now(UTC), attested=True
    )
    assert await (await HealthStore.open(bus)).attest(goodbye)
    assert await (await HealthStore.open(bus)).attest(goodbye) is None

    async def forgotten():
        return await presence.client.zscore(PRESENCE_KEY, agent[2]) is None

    await eventually(forgotten)
    await presence.beat(agent[2])  # a heartbeat that was on its way
    await eventually(forgotten)
    assert (of(health, agent), states.of(agent[2])) == (Health.GONE, AgentState.GONE)


async def test_one_that_was_seen_to_die_counts_as_lost(
    start_sentinel, presence, running, agent, bus, health, eventually
):
    states = await start_sentinel()
    await put(bus, record_of(agent))
    running(presence.keep_beating())
    await presence.beat(agent[2])
    await eventually(lambda: of(health, agent) is Health.HEALTHY)
    dead = HealthRecord(
        agent=agent[0], instance=agent[1], health=Health.LOST, since=datetime.now(UTC), attested=True
    )
    await (await HealthStore.open(bus)).attest(dead)
    await eventually(lambda: states.of(agent[2]) is AgentState.LOST)
    assert not states.has_left(agent[2])


async def test_a_process_that_was_replaced_is_gone_and_not_lost(start_sentinel, agent, bus, eventually):
    states = await start_sentinel()
    await put(bus, record_of((agent[0], "f" * 32)))
    await eventually(lambda: states.agents.get(agent[0]))
    assert states.of(agent[2]) is AgentState.GONE


def record_of(agent):
    return AgentRecord(
        name=agent[0],
        instance=agent[1],
        role="worker",
        queues=("q",),
        slots=1,
        token_id="0" * 12,
        registered_at=datetime.now(UTC),
    )


async def put(bus, record):
    await (await AgentStore.open(bus)).bucket.put(record.name, record)
