"""Cordon and drain through the gateway: at once, in every answer, over restarts, and not for others."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta

import pytest

from jetbridge.bus.orders import OrderStore


@pytest.fixture
async def orders(bus):
    return await OrderStore.open(bus)


def in_seconds(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def waiting(gateway, agent, eventually, **body):
    poll = asyncio.create_task(agent.poll(**body))
    await eventually(lambda: gateway.gateway.polls.board.of(agent.name))
    return poll


async def test_a_cordoned_agent_is_told_and_offered_nothing_until_it_is_uncordoned(
    agent, gateway, orders, store, workload, eventually
):
    poll = await waiting(gateway, agent, eventually)
    assert await orders.cordon(agent.name)
    assert (await poll).json() == {"orders": {"cordoned": True}}
    await store.submit(workload())
    # Told once: the next poll is held, so this answer comes when its time is up, and without an offer.
    assert (await agent.poll(wait_seconds=0.5)).json() == {"orders": {"cordoned": True}}
    poll = await waiting(gateway, agent, eventually)
    assert await orders.uncordon(agent.name)
    assert len((await poll).json()["offers"]) == 1


async def test_work_goes_to_the_agent_that_is_not_cordoned(
    agent, make_agent, gateway, orders, store, workload, eventually
):
    await orders.cordon(agent.name)
    await eventually(lambda: gateway.gateway.agents.orders.is_cordoned(agent.name))
    other = await make_agent()
    await other.register()
    await agent.poll()  # is told, so that the next is held
    held = await waiting(gateway, agent, eventually, wait_seconds=1)
    free = await waiting(gateway, other, eventually)
    await store.submit(workload())
    assert len((await free).json()["offers"]) == 1
    assert "offers" not in (await held).json()


async def test_a_cordon_is_there_after_restarts_of_gateway_and_agent(
    agent, start_gateway, orders, store, workload
):
    await orders.cordon(agent.name)
    await store.submit(workload())
    other = await start_gateway()
    agent.instance = secrets.token_hex(16)
    await agent.register()
    answer = (await agent.poll(other.client, wait_seconds=0.3)).json()
    assert answer == {"orders": {"cordoned": True}}
    assert (await agent.heartbeat(other.client)).json()["orders"] == {"cordoned": True}


async def test_a_drain_is_for_the_process_it_was_ordered_for(agent, orders, gateway, eventually):
    poll = await waiting(gateway, agent, eventually)
    await orders.drain(agent.name, agent.instance, in_seconds(600))
    told = (await poll).json()["orders"]
    assert (told["cordoned"], told["drain"]) == (True, True)
    assert 590 < told["hand_over_in_seconds"] <= 600
    assert (await agent.heartbeat()).json()["orders"]["drain"] is True
    agent.instance = secrets.token_hex(16)
    await agent.register()
    assert (await agent.heartbeat()).json()["orders"] == {"cordoned": True}


async def test_of_two_deadlines_the_earlier_holds_and_a_cordon_does_not_undo_a_drain(agent, orders):
    await orders.drain(agent.name, agent.instance, in_seconds(60))
    await orders.drain(agent.name, agent.instance, in_seconds(600), "later")
    assert not await orders.cordon(agent.name)
    answer = (await agent.heartbeat()).json()["orders"]
    assert answer["hand_over_in_seconds"] <= 60
    await orders.drain(agent.name, agent.instance, in_seconds(0))
    assert (await agent.heartbeat()).json()["orders"]["hand_over_in_seconds"] == 0


async def test_a_heartbeat_that_says_draining_is_kept(agent, bus):
    await agent.heartbeat(draining=True)
    await agent.heartbeat(draining=True)
    entry = await (await bus.bucket("agents")).get(agent.name)
    assert b'"draining":true' in entry.value
