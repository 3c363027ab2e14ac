from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import pytest

from jetbridge.agent import loops
from jetbridge.agent.loops import heartbeat_loop, poll_loop
from jetbridge.agent.session import HEARTBEAT_JITTER, heartbeat_limit_seconds
from jetbridge.agent.stop import StopRequests
from jetbridge.contracts.api import (
    FENCE_SHARE,
    MIN_LEASE_SECONDS,
    HeartbeatRequest,
    PollResponse,
    RegisterResponse,
)
from jetbridge.contracts.problems import ProblemType


class FakeRole:
    """A role that remembers what it was told."""

    def __init__(self):
        self.told_until = []
        self.slots_changed = asyncio.Event()
        self.state_changed = asyncio.Event()
        self.draining = False
        self.free = 2
        self.held_here = ()
        self.got = []
        self.told_lost = []
        self.told_held = []

    def free_slots(self):
        return self.free

    def leases(self):
        return self.held_here

    def offered(self, offers):
        self.got += [offer.lease for offer in offers]
        self.free -= len(offers)

    def lost(self, leases):
        self.told_lost += leases

    def held(self, leases):
        self.told_held.append(tuple(leases))

    def prolonged(self, _sent_at, until):
        self.told_until.append(until)

    def set_free(self, free):
        self.free = free
        self.slots_changed.set()


@pytest.fixture
async def role(session):
    await session.register()
    return FakeRole()


HERE, GONE = (f"0190c3f4-0000-7000-8000-{number:012}.1" for number in (1, 2))


@contextlib.asynccontextmanager
async def looping(loop):
    task = asyncio.create_task(loop)
    try:
        yield
    finally:
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.wait({task})


async def test_heartbeats_carry_what_the_agent_believes(session, gateway, role):
    role.held_here = (HERE,)
    async with looping(heartbeat_loop(session, role, StopRequests())):
        await gateway.until(lambda: len(gateway.called("heartbeat")) >= 3)
        role.draining = True
        await gateway.until(lambda: gateway.called("heartbeat")[-1].body.draining)
    first = gateway.called("heartbeat")[0].body
    assert (first.free_slots, first.leases, first.draining) == (2, (HERE,), False)


async def test_a_named_lease_that_the_answer_lacks_is_lost(session, gateway, role):
    lease = await gateway.offer()
    await session.accept(lease)
    role.held_here = (lease, GONE)
    async with looping(heartbeat_loop(session, role, StopRequests())):
        await gateway.until(lambda: len(role.told_held) >= 2)
    assert set(role.told_lost) == {GONE}
    assert role.told_held[0] == (lease,)


async def test_a_recorded_heartbeat_prolongs_from_the_moment_it_was_sent(session, gateway, role):
    before = time.monotonic()
    async with looping(heartbeat_loop(session, role, StopRequests())):
        await gateway.until(lambda: role.told_until)
    sent = role.told_until[0] - FENCE_SHARE * session.plan.lease_seconds
    assert before <= sent <= time.monotonic()


async def test_the_lost_tries_of_a_heartbeat_do_not_count_as_sent(session, gateway, role):
    gateway.problems["heartbeat"] = [ProblemType.UNAVAILABLE] * 3
    async with looping(heartbeat_loop(session, role, StopRequests())):
        await gateway.until(lambda: len(gateway.called("heartbeat")) >= 3)
        third = time.monotonic()
        await gateway.until(lambda: role.told_until)
    assert role.told_until[0] >= third - 30 + FENCE_SHARE * session.plan.lease_seconds


async def test_after_an_answer_that_came_late_the_next_heartbeat_is_due(session, gateway, role, monkeypatch):
    waits = asyncio.Queue()

    async def note(_event, seconds):
        waits.put_nowait(seconds)
        await asyncio.Event().wait()

    async def late(body):
        request = body()
        await asyncio.sleep(2 * session.plan.heartbeat_interval_seconds)
        return request, await session._client.heartbeat("a", session._credential, request, 60)

    monkeypatch.setattr(loops, "wait_at_most", note)
    monkeypatch.setattr(session, "heartbeat", late)
    async with looping(heartbeat_loop(session, role, StopRequests())):
        assert await waits.get() < 0
    assert gateway.called("heartbeat")


def test_two_tries_of_a_heartbeat_fit_in_before_work_is_killed():
    plan = RegisterResponse(
        agent="a",
        credential="c",
        credential_expires_in_seconds=60,
        heartbeat_interval_seconds=5.0,
        poll_wait_seconds=20,
        lease_seconds=MIN_LEASE_SECONDS,
    )
    limit = heartbeat_limit_seconds(plan)
    assert 5.0 * (1 + HEARTBEAT_JITTER) + 2 * limit <= FENCE_SHARE * MIN_LEASE_SECONDS
    assert heartbeat_limit_seconds(msgspec.structs.replace(plan, lease_seconds=86400.0)) == 20.0
    assert heartbeat_limit_seconds(msgspec.structs.replace(plan, heartbeat_interval_seconds=14.0)) == 2.5


async def test_a_heartbeat_that_was_not_recorded_prolongs_nothing(session, gateway, role):
    gateway.records = False
    async with looping(heartbeat_loop(session, role, StopRequests())):
        await gateway.until(lambda: len(role.told_held) >= 3)
    assert role.told_until == []


@pytest.mark.parametrize("lease_seconds", [MIN_LEASE_SECONDS, 20.0, 120.0, 3600.0, 86400.0])
def test_an_agent_always_has_time_to_kill_before_the_plane_gives_its_work_away(lease_seconds):
    kill_seconds = 2.0  # SIGKILL takes milliseconds; a loaded machine may take longer to schedule it
    assert FENCE_SHARE * lease_seconds + kill_seconds < lease_seconds


async def test_a_change_of_state_is_told_at_once(session, gateway, role):
    gateway.heartbeat_interval_seconds = 3600.0
    async with looping(heartbeat_loop(session, role, StopRequests())):
        await gateway.until(lambda: gateway.called("heartbeat"))
        role.draining = True
        role.state_changed.set()
        # The last one: on a slow machine the first may have been tried twice.
        await gateway.until(lambda: gateway.called("heartbeat")[-1].body.draining)


async def test_heartbeats_go_on_after_an_outage(session, gateway, role):
    async with looping(heartbeat_loop(session, role, StopRequests())):
        await gateway.until(lambda: gateway.called("heartbeat"))
        gateway.down = True
        seen = len(gateway.calls)
        await asyncio.sleep(0.05)
        assert len(gateway.calls) == seen
        gateway.down = False
        await gateway.until(lambda: len(gateway.called("heartbeat")) > seen)


async def test_offers_arrive_up_to_the_free_slots(session, gateway, role):
    offered = [await gateway.offer() for _ in range(3)]
    async with looping(poll_loop(session, role, StopRequests())):
        await gateway.until(lambda: role.got)
    assert role.got == offered[:2]
    assert gateway.called("poll")[0].body.free_slots == 2


async def test_orders_to_stop_arrive_on_the_open_poll_of_a_full_agent(session, gateway, role, monkeypatch):
    monkeypatch.setattr(loops, "FULL_PATIENCE_SECONDS", 0.01)
    gateway.poll_wait_seconds = 60.0
    lease = await gateway.offer()
    await session.accept(lease)
    role.held_here = (lease,)
    role.set_free(0)
    async with looping(poll_loop(session, role, StopRequests())):
        await gateway.until(lambda: gateway.called("poll"))
        await gateway.take_back(lease)
        role.held_here = ()
        await gateway.until(lambda: role.told_lost)
    assert role.told_lost == [lease]


async def test_a_slot_that_becomes_free_replaces_a_poll_for_orders_alone(session, gateway, role, monkeypatch):
    monkeypatch.setattr(loops, "FULL_PATIENCE_SECONDS", 0.01)
    gateway.poll_wait_seconds = 60.0
    role.set_free(0)
    async with looping(poll_loop(session, role, StopRequests())):
        await gateway.until(lambda: gateway.called("poll"))
        role.set_free(1)
        await gateway.until(lambda: len(gateway.called("poll")) == 2)
        lease = await gateway.offer()
        await gateway.until(lambda: role.got)
    assert role.got == [lease]
    assert [call.body.free_slots for call in gateway.called("poll")][:2] == [0, 1]


async def test_a_full_agent_waits_a_moment_for_a_slot_before_it_polls_for_orders(session, gateway, role):
    role.set_free(0)
    async with looping(poll_loop(session, role, StopRequests())):
        await asyncio.sleep(0)
        role.set_free(1)
        await gateway.until(lambda: gateway.called("poll"))
    assert gateway.called("poll")[0].body.free_slots == 1


async def test_a_gateway_that_does_not_hold_polls_is_not_hammered(session, gateway, role, monkeypatch):
    pauses = []

    async def noting(_event, seconds):
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(loops, "wait_at_most", noting)
    gateway.poll_wait_seconds = 30.0
    gateway.credential = ""  # so that the new plan is learned

    async def at_once(_target, _bearer, _body):
        return PollResponse()

    monkeypatch.setattr(gateway, "_poll", at_once)
    await session.heartbeat(lambda: HeartbeatRequest(free_slots=1))
    async with looping(poll_loop(session, role, StopRequests())):
        await gateway.until(lambda: len(pauses) >= 3)
    assert all(0.5 < pause <= 1.0 for pause in pauses)
