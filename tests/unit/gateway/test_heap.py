"""What survived a full collection is set aside, is freed all the same, and is looked at again in the end."""

import asyncio
import gc
import weakref

import pytest

from jetbridge.gateway import heap
from jetbridge.gateway.heap import collect_all, settled_heap


class Thing:
    """Something that can be in a cycle and be watched."""


@pytest.fixture(autouse=True)
def undisturbed():
    gc.disable()
    yield
    gc.enable()


def in_a_cycle():
    thing = Thing()
    thing.itself = thing
    return thing, weakref.ref(thing)


async def test_a_full_collection_sets_aside_what_is_left():
    async with settled_heap():
        before = gc.get_freeze_count()
        things = [Thing() for _ in range(1000)]
        gc.collect(1)
        assert gc.get_freeze_count() <= before
        gc.collect()
        assert gc.get_freeze_count() >= before + len(things)
    assert gc.get_freeze_count() == 0
    assert heap._set_aside not in gc.callbacks


async def test_what_was_set_aside_is_freed_when_nobody_refers_to_it():
    async with settled_heap():
        thing = Thing()
        seen = weakref.ref(thing)
        gc.collect()
        del thing
        assert seen() is None


async def test_a_cycle_that_was_set_aside_waits_for_the_look_at_everything():
    async with settled_heap():
        thing, seen = in_a_cycle()
        gc.collect()
        del thing
        gc.collect()
        assert seen() is not None
        collect_all()
        assert seen() is None


async def test_everything_is_looked_at_again_after_an_hour(monkeypatch):
    monkeypatch.setattr(heap, "LOOK_AGAIN_SECONDS", 0)
    async with settled_heap():
        thing, seen = in_a_cycle()
        gc.collect()
        del thing
        while seen():
            await asyncio.sleep(0)
