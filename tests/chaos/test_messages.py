"""Every message of a burst is delivered four times and out of order; nothing happens twice for it."""

from __future__ import annotations

import contextlib

import pytest
from chaoskit.saboteur import COPIES, sabotage
from chaoskit.world import SLOTS

pytestmark = pytest.mark.slow


def test_messages_are_repeated_and_reordered(world, chance):
    with sabotage(world.stack.nats.url, chance) as saboteur:
        burst = world.burst("messages repeated and reordered", width=2 * SLOTS, seconds=0.5, hold=False)
        burst.prove(undisturbed=True)
    assert saboteur.repeated >= COPIES * 2 * SLOTS  # it did hear the work


@pytest.mark.long
def test_messages_are_repeated_while_an_agent_loses_its_work(world, chance):
    with contextlib.ExitStack() as running:
        running.enter_context(sabotage(world.stack.nats.url, chance))
        burst = world.burst("messages repeated, agent killed")
        burst.await_started(SLOTS)
        process = burst.busiest().process
        burst.breaks(process.kill)
        process.start()
        burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin again")
        burst.prove()
