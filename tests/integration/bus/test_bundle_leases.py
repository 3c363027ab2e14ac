"""Leases of bundles on a real server: one holder at a time, ended by NATS' clock, fenced by epochs."""

import asyncio
import uuid

import pytest
from nats.js import api

from jetbridge.bus.bundles import BundleStore, epoch_of, held_by
from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.dag_processing import BundleRecord

ONE, TWO = "a" * 32, "b" * 32


@pytest.fixture
async def bundles(bus):
    return await BundleStore.open(bus)


@pytest.fixture
def bundle():
    return f"bundle with spaces, {uuid.uuid4()}"


@pytest.fixture
async def short_lived(bus):
    """The same store on a bucket whose leases end after two seconds, NATS' shortest."""
    name = f"leases-{uuid.uuid4().hex[:8]}"
    await bus.js.create_key_value(api.KeyValueConfig(bucket=name, ttl=2))
    kv = await bus.js.key_value(name)
    return BundleStore(RecordBucket(bus.js, kv, name, BundleRecord))


async def test_one_holds_and_the_other_learns_who(bundles, bundle):
    first = await bundles.claim(bundle, "site-a", ONE)
    second = await bundles.claim(bundle, "site-b", TWO)
    assert (first.record.agent, second.record.agent) == ("site-a", "site-a")


async def test_keeping_a_bundle_keeps_its_epoch(bundles, bundle):
    first = await bundles.claim(bundle, "site-a", ONE)
    later = [await bundles.claim(bundle, "site-a", ONE) for _ in range(3)]
    assert {epoch_of(lease) for lease in later} == {epoch_of(first)}
    assert later[-1].revision > first.revision


async def test_a_new_process_of_the_same_agent_takes_over_under_a_higher_epoch(bundles, bundle):
    first = await bundles.claim(bundle, "site-a", ONE)
    second = await bundles.claim(bundle, "site-a", TWO)
    assert epoch_of(second) > epoch_of(first)
    now = await bundles.get(bundle)
    assert held_by(now, "site-a", TWO, epoch_of(second))
    assert not held_by(now, "site-a", ONE, epoch_of(first))


async def test_what_is_given_back_can_be_taken_at_once_under_a_higher_epoch(bundles, bundle):
    first = await bundles.claim(bundle, "site-a", ONE)
    await bundles.release(bundle, "site-a", ONE, epoch_of(first))
    second = await bundles.claim(bundle, "site-b", TWO)
    assert second.record.agent == "site-b"
    assert epoch_of(second) > epoch_of(first)


@pytest.mark.parametrize(("agent", "instance"), [("site-b", ONE), ("site-a", TWO)])
async def test_only_the_holder_gives_back(bundles, bundle, agent, instance):
    first = await bundles.claim(bundle, "site-a", ONE)
    await bundles.release(bundle, agent, instance, epoch_of(first))
    await bundles.release(bundle, "site-a", ONE, epoch_of(first) + 1)
    assert held_by(await bundles.get(bundle), "site-a", ONE, epoch_of(first))


async def test_of_many_at_once_one_gets_it(bundles, bundle):
    leases = await asyncio.gather(*(bundles.claim(bundle, f"site-{n}", ONE) for n in range(8)))
    assert len({lease.record.agent for lease in leases}) == 1


async def test_a_lease_that_is_not_kept_ends_and_one_that_is_kept_does_not(short_lived, bundle):
    await short_lived.claim(bundle, "site-a", ONE)
    kept = await short_lived.claim("kept", "site-a", ONE)
    async with asyncio.timeout(30):
        while (await short_lived.claim(bundle, "site-b", TWO)).record.agent == "site-a":
            await asyncio.sleep(0.3)
            await short_lived.claim("kept", "site-a", ONE)
    assert held_by(await short_lived.get("kept"), "site-a", ONE, epoch_of(kept))
