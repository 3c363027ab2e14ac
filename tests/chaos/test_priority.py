"""What an agent has lost is begun again before all that is less urgent, however long that has waited."""

from __future__ import annotations

import time

import pytest
from chaoskit.world import SLOTS

from jetbridge.contracts.records import WorkloadState

pytestmark = [pytest.mark.slow, pytest.mark.long]

URGENT = 2 * SLOTS - 1
"""All slots but the one in which the others list what there is to do."""


def queued(burst):
    """Return how many tasks of a burst wait in their lane."""
    return sum(one.state is WorkloadState.SUBMITTED for one in burst.records())


def starts(burst, after):
    """Return when tasks of a burst began later than that."""
    return [one.start for one in burst.attempts() if one.start > after]


def test_rerouted_work_keeps_its_priority(world):
    urgent = world.burst("agent with urgent work killed", width=URGENT, dag_id="urgent")
    urgent.await_started(URGENT)
    backlog = world.burst("less urgent work beside it", width=3 * SLOTS)
    backlog.wait(lambda: queued(backlog) == 3 * SLOTS - 1, "a backlog")
    lost = urgent.busiest()
    mine = sum(one.agent == lost.spec.name and not one.finished for one in urgent.attempts())
    urgent.breaks(lost.process.kill)
    lost.process.start()
    # The agent's slots go to the backlog at once. What it had lost comes into a lane that is waiting already.
    urgent.wait(
        lambda: queued(urgent) + len(starts(urgent, urgent.broken_at)) == mine, "the urgent work to be back"
    )
    released_at = time.monotonic()
    backlog.let_go()
    urgent.wait(lambda: len(starts(urgent, urgent.broken_at)) == mine, "the urgent work to begin again")
    last = max(starts(urgent, urgent.broken_at))
    overtaken_by = [start for start in starts(backlog, released_at) if start < last]
    assert not overtaken_by, f"{len(overtaken_by)} less urgent tasks began first"
    urgent.prove()
    backlog.prove(undisturbed=True)
