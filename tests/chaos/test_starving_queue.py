"""Tasks of a queue that no agent serves: people are told, and the policy may send the work elsewhere."""

from __future__ import annotations

import json

import pytest

from jetbridge.contracts.policies import WhenStarving

pytestmark = pytest.mark.slow

QUEUE = "queue:nobody"


def test_stranded_work_is_reported_and_then_moved(world):
    world.set_policy(QUEUE, starving_after_seconds=2.0)
    burst = world.burst("queue without agents, moved", width=2, hold=False, dag_id="stranded")
    burst.wait(
        lambda: burst.told("jetbridge.starving"), "the task's history to say that nobody serves its queue"
    )
    (told,) = burst.told("jetbridge.starving")
    assert "no healthy agent serves queue 'nobody'" in json.loads(told["extra"])["reason"]
    assert burst.marks() == []
    burst.breaks(
        lambda: world.set_policy(
            QUEUE,
            starving_after_seconds=2.0,
            when_starving=WhenStarving.MOVE,
            fallback_queues=("nobody-either", "default"),
        )
    )
    burst.prove(undisturbed=True)
    burst.wait(
        lambda: len(burst.told("jetbridge.moved")) >= 3, "the history of each task to say that it was moved"
    )
    moved = {
        (one["task_id"], one["map_index"]): json.loads(one["extra"]) for one in burst.told("jetbridge.moved")
    }
    assert len(moved) == 3
    assert {(extra["queue"], extra["to"]) for extra in moved.values()} == {("nobody", "default")}


@pytest.mark.long
def test_by_default_it_is_reported_within_half_a_minute(world):
    world.set_policy(QUEUE)
    burst = world.burst("queue without agents, reported", width=1, hold=False, dag_id="stranded")
    burst.wait(burst.records, "its work to be handed over")
    burst.breaks(lambda: None)
    burst.wait(
        lambda: burst.told("jetbridge.starving"), "the task's history to say that nobody serves its queue"
    )
    burst.note_recovery()
    world.set_policy(
        QUEUE, when_starving=WhenStarving.MOVE, fallback_queues=("default",), starving_after_seconds=1.0
    )
    burst.prove(undisturbed=True)
