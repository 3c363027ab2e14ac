"""What a policy says is what happens when an agent is lost; and of two routers one is enough."""

from __future__ import annotations

import contextlib

import pytest
from chaoskit.faults import frozen
from chaoskit.marks import check
from chaoskit.world import SLOTS

from jetbridge.contracts.records import OnAgentLost

pytestmark = [pytest.mark.slow, pytest.mark.long]

QUEUE = "queue:default"


def test_a_queue_whose_work_must_not_be_repeated(world):
    """Its tasks fail with their agent, none runs a second time, and the other agent's go on."""
    world.set_policy(QUEUE, on_agent_lost=OnAgentLost.FAIL)
    try:
        burst = world.burst("agent killed, policy says fail")
        burst.await_started(SLOTS)
        lost = burst.busiest()
        own = {one.task for one in burst.attempts() if one.agent == lost.spec.name and not one.finished}
        lost.process.kill()
        lost.process.start()
        burst.let_go()
        burst.wait(lambda: burst.state() == "failed", "the run to fail")
    finally:
        world.set_policy(QUEUE)
    violations = check(burst.marks(), burst.expected(), undisturbed=True)
    assert {one.rule for one in violations} == {"lost"}, violations
    assert {one.detail.split()[0] for one in violations} == own
    failed = [one for one in burst.instances() if one["state"] == "failed"]
    assert len(failed) == len(own)
    assert {one["try_number"] for one in failed} == {1}


@pytest.mark.parametrize("which", [0, 1])
def test_of_two_routers_one_hangs(world, which):
    burst = world.burst("one router frozen, agent killed")
    burst.await_started(SLOTS)
    process = burst.busiest().process
    with contextlib.ExitStack() as hanging:
        hanging.enter_context(frozen(world.plane("router")[which]))
        burst.breaks(process.kill)
        process.start()
        burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin again")
    # The other one wakes up with yesterday's view of the world.
    burst.prove()
