"""What an agent has lost is begun again before all that is less urgent, however long that has waited."""

from __future__ import annotations

import pytest
from chaoskit.world import SLOTS

from jetbridge.contracts.records import WorkloadState

pytestmark = [pytest.mark.slow, pytest.mark.long]

URGENT = 2 * SLOTS - 1
"""All slots but the one in which the others list what there is to do."""

BACKLOG = 3 * SLOTS


def queued(burst):
    """Return how many tasks of a burst wait in their lane."""
    return sum(one.state is WorkloadState.SUBMITTED for one in burst.records())


def again(burst):
    """Return what of a burst began after the damage."""
    return [one for one in burst.attempts() if one.start > burst.broken_at]


def test_rerouted_work_keeps_its_priority(world):
    urgent = world.burst("agent with urgent work killed", width=URGENT, dag_id="urgent")
    urgent.await_started(URGENT)
    backlog = world.burst("less urgent work beside it", width=BACKLOG)
    backlog.wait(lambda: queued(backlog) == BACKLOG - 1, "a backlog")
    lost = urgent.busiest()
    mine = sum(one.agent == lost.spec.name and not one.finished for one in urgent.attempts())
    urgent.breaks(lost.process.kill)
    lost.process.start()
    # The agent's slots go to the backlog at once. What it had lost comes into a lane that is waiting already.
    urgent.wait(lambda: queued(urgent) + len(again(urgent)) == mine, "the urgent work to be back")
    ahead = BACKLOG - queued(backlog)  # has a slot already, begun or not
    backlog.let_go()
    urgent.wait(lambda: len(again(urgent)) == mine, "the urgent work to begin again")
    # By epochs, the order in which work was given out: of what is given together, any may begin first.
    last = max(one.epoch for one in again(urgent))
    overtaking = [one for one in backlog.attempts() if one.task != "indices[0]" and one.epoch < last]
    assert len(overtaking) <= ahead < BACKLOG
    urgent.prove()
    backlog.prove(undisturbed=True)
