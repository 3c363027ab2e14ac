"""An agent learns what it really holds: from its open poll at once, from heartbeats, and never wrongly."""

import asyncio
import uuid

import redis.asyncio as redis

from jetbridge.contracts.presence import GATEWAYS_KEY, PRESENCE_KEY, agent_of
from jetbridge.gateway.presence import details_key


async def test_a_lease_that_moves_on_ends_the_poll_that_names_it(agent, gateway, store, workload, eventually):
    new = workload()
    await store.submit(new)
    lease, _ = await agent.lease()
    poll = asyncio.create_task(agent.poll(leases=[lease]))
    await eventually(lambda: len(gateway.gateway.polls.board))
    await store.remove(new.workload_id)
    assert (await poll).json() == {"stop": [lease]}


async def test_a_lost_lease_is_told_at_the_next_poll(agent, store, workload):
    new = workload()
    await store.submit(new)
    lease, _ = await agent.lease()
    await store.submit(new)
    answer = (await agent.poll(leases=[lease], free_slots=0)).json()
    assert answer["stop"] == [lease]


async def test_an_agent_that_is_still_stopping_is_not_woken_again_and_again(agent, store, workload):
    new = workload()
    await store.submit(new)
    lease, _ = await agent.lease()
    await store.remove(new.workload_id)
    assert (await agent.poll(leases=[lease])).json() == {"stop": [lease]}
    # Held for its time although the lease is still lost, and told again with the answer.
    assert (await agent.poll(leases=[lease], wait_seconds=0.2)).json() == {"stop": [lease]}


async def test_held_offered_and_finished_leases_are_not_stopped(agent, store, workload):
    new = workload()
    await store.submit(new)
    (offer,) = (await agent.poll()).json()["offers"]
    lease = offer["lease"]
    quiet = {"leases": [lease], "free_slots": 0, "wait_seconds": 0.1}
    assert (await agent.poll(**quiet)).json() == {}
    await agent.accept(lease)
    assert (await agent.poll(**quiet)).json() == {}
    await agent.report(lease)
    assert (await agent.poll(**quiet)).json() == {}


async def test_heartbeats_answer_what_is_really_held(agent, store, workload):
    kept, lost = workload(), workload()
    await store.submit(kept)
    await store.submit(lost)
    leases = []
    while len(leases) < 2:
        leases += [offer["lease"] for offer in (await agent.poll()).json()["offers"]]
    for lease in leases:
        await agent.accept(lease)
    await store.remove(lost.workload_id)
    held = [lease for lease in leases if lease.startswith(kept.workload_id)]
    answer = (await agent.heartbeat(leases=[*leases, f"{uuid.uuid4()}.7"])).json()
    assert answer["leases"] == held


async def test_heartbeats_are_right_through_a_gateway_that_saw_nothing(agent, start_gateway, store, workload):
    other = await start_gateway()
    for _ in range(5):  # each a race between the accept and the other gateway's mirror
        await store.submit(workload())
        lease, _ = await agent.lease()
        assert lease in (await agent.heartbeat(other.client, leases=[lease])).json()["leases"]


async def test_presence_is_written(agent, redis_url, eventually):
    async with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        await agent.heartbeat(free_slots=3, draining=True)

        async def written():
            return await client.hgetall(details_key(agent.name))

        details = await eventually(written)
        assert details["free_slots"] == "3"
        assert details["draining"] == "1"
        members = await client.zrange(PRESENCE_KEY, 0, -1, withscores=True)
        (score,) = [score for member, score in members if agent_of(member) == (agent.name, agent.instance)]
        assert score == float(details["at_ms"])
        assert await client.zcard(GATEWAYS_KEY)
