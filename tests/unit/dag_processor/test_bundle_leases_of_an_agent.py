"""A lease is believed no longer than it lasts, and given up before anybody else can have it."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from jetbridge.contracts.dag_processing import ClaimBundlesResponse, HeldBundle, StandbyBundle
from jetbridge.dag_processor.leases import BundleLeases


class FakeSession:
    """Grants what is asked for, unless somebody else has it."""

    def __init__(self):
        self.plan = SimpleNamespace(heartbeat_interval_seconds=0.01)
        self.lease_seconds, self.others, self.requests, self.epoch = 60.0, {}, [], 7
        self.answer = asyncio.Event()
        self.answer.set()

    async def claim(self, request):
        asked = time.monotonic()
        self.requests.append(request)
        await self.answer.wait()
        held = [one for one in request.bundles if one not in self.others]
        standby = [one for one in request.bundles if one in self.others]
        return asked, ClaimBundlesResponse(
            held=tuple(HeldBundle(bundle=one, epoch=self.epoch) for one in held),
            standby=tuple(StandbyBundle(bundle=one, agent=self.others[one]) for one in standby),
            lease_seconds=self.lease_seconds,
        )


@pytest.fixture
def session():
    return FakeSession()


@pytest.fixture
async def leases(session):
    leases = BundleLeases(session)
    task = asyncio.create_task(leases.run())
    yield leases
    task.cancel()
    await asyncio.wait({task})


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_wanted_is_asked_for_at_once_and_kept(session, leases):
    leases.want(("a", "b"))
    await until(lambda: leases.epochs == {"a": 7, "b": 7})
    kept = len(session.requests)
    await until(lambda: len(session.requests) > kept + 3)
    assert session.requests[-1].release == ()


async def test_what_somebody_else_has_is_not_ours_until_it_is(session, leases):
    session.others["b"] = "other"
    leases.want(("a", "b"))
    await until(lambda: leases.epochs == {"a": 7})
    del session.others["b"]
    await until(lambda: leases.epochs == {"a": 7, "b": 7})


async def test_what_is_lost_is_not_ours(session, leases):
    leases.want(("a",))
    await until(lambda: leases.epochs)
    session.others["a"] = "other"
    await until(lambda: not leases.epochs)


async def test_a_lease_ends_by_itself_when_the_plane_is_silent(session, leases):
    session.lease_seconds = 0.2
    leases.want(("a",))
    await until(lambda: leases.epochs)
    session.answer.clear()
    await until(lambda: not leases.epochs)


async def test_a_lease_counts_from_when_it_was_asked_for(session, leases):
    session.lease_seconds = 0.1
    session.answer.clear()
    leases.want(("a",))
    await until(lambda: session.requests)
    await asyncio.sleep(0.15)
    session.answer.set()
    await until(lambda: len(session.requests) > 1)
    first = session.requests[0]
    assert first.bundles == ("a",)


async def test_what_is_not_wanted_any_more_is_given_back_and_not_ours_from_then_on(session, leases):
    leases.want(("a", "b"))
    await until(lambda: len(leases.epochs) == 2)
    session.answer.clear()
    leases.want(("b",))
    await until(lambda: session.requests[-1].release)
    assert session.requests[-1].release == (HeldBundle(bundle="a", epoch=7),)
    assert set(leases.epochs) == {"b"}
    session.answer.set()


async def test_everything_is_given_back_at_the_end(session):
    leases = BundleLeases(session)
    leases.want(("a",))
    await leases._claim()
    await leases.give_back(5)
    assert session.requests[-1].release == (HeldBundle(bundle="a", epoch=7),)
    assert leases.epochs == {}


async def test_an_end_is_not_held_up_by_a_silent_plane(session):
    leases = BundleLeases(session)
    leases.want(("a",))
    await leases._claim()
    session.answer.clear()
    await leases.give_back(0.01)
    assert leases.epochs == {}
