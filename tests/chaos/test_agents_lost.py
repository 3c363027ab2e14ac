"""Agents are killed, hang and are cut off in the middle of a burst: work goes on, never beside itself."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest
from chaoskit.faults import cut, frozen, slow_and_lossy
from chaoskit.world import LEASE_SECONDS, SLOTS

pytestmark = pytest.mark.slow


def test_an_agent_is_killed_and_started_again(world):
    burst = world.burst("agent killed, started again")
    burst.await_started(SLOTS)
    process = burst.busiest().process
    burst.breaks(process.kill)
    process.start()
    burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin again")
    burst.prove()


@pytest.mark.long
def test_an_agent_is_killed_for_good(world):
    burst = world.burst("agent killed, nobody saw it")
    burst.await_started(SLOTS)
    burst.breaks(burst.busiest().process.kill)
    burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
    burst.prove()


@pytest.mark.long
def test_an_agent_hangs_while_its_tasks_would_run_on(world):
    burst = world.burst("agent hangs (SIGSTOP)")
    burst.await_started(SLOTS)
    with contextlib.ExitStack() as hanging:
        # The agent alone: its fork server and the tasks go on, until the fork server's own fence.
        burst.breaks(lambda: hanging.enter_context(frozen(burst.busiest().process, alone=True)))
        burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
    burst.prove()


@pytest.mark.long
def test_a_whole_site_is_frozen_and_thawed_after_its_lease(world):
    """The kernel itself kills what is stopped when its lease is over, so it leaves no mark more (ADR 131)."""
    burst = world.burst("agent and its tasks frozen")
    burst.await_started(SLOTS)
    with contextlib.ExitStack() as asleep:
        burst.breaks(lambda: asleep.enter_context(frozen(burst.busiest().process)))
        burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
    burst.prove()


@pytest.mark.parametrize("direction", ["requests", "answers"])
def test_a_link_is_cut_for_less_than_the_lease(world, direction):
    burst = world.burst(f"{direction} cut, healed within the lease")
    burst.await_started(SLOTS)
    agent = burst.busiest()
    with cut(agent, direction, world.stack.not_isolated_because):
        burst.breaks(lambda: time.sleep(LEASE_SECONDS / 3))  # the length of the cut is what is tested
    burst.prove(undisturbed=True)


@pytest.mark.long
@pytest.mark.parametrize("direction", ["requests", "answers"])
def test_a_link_is_cut_for_longer_than_the_lease(world, direction):
    burst = world.burst(f"{direction} cut for longer than the lease")
    burst.await_started(SLOTS)
    agent = burst.busiest()
    with contextlib.ExitStack() as severed:
        burst.breaks(lambda: severed.enter_context(cut(agent, direction, world.stack.not_isolated_because)))
        burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
    burst.prove()


@pytest.mark.long
def test_both_directions_are_cut_one_after_the_other(world):
    """First nothing gets out, then nothing gets in: each cut is shorter than the lease, both are not."""
    burst = world.burst("requests cut, then answers")
    burst.await_started(SLOTS)
    agent, why_not = burst.busiest(), world.stack.not_isolated_because
    with cut(agent, "requests", why_not):
        burst.breaks(lambda: time.sleep(LEASE_SECONDS * 0.6))
        agent.namespace.cut_answers()
        burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
    burst.prove()


@pytest.mark.long
def test_a_slow_and_lossy_link(world, record_property):
    burst = world.burst("slow and lossy link", width=3 * SLOTS, seconds=3.0, hold=False)
    with slow_and_lossy(world.stack.agents["one"], world.stack.not_isolated_because) as how:
        record_property("link", how)
        burst.prove(undisturbed=True)


@pytest.mark.long
def test_all_agents_are_killed_at_once(world):
    burst = world.burst("all agents killed, started again")
    burst.await_started(SLOTS)

    def kill_all():
        for agent in world.stack.agents.values():
            agent.process.kill()

    burst.breaks(kill_all)
    for agent in world.stack.agents.values():
        agent.process.start()
    burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin again")
    burst.prove()


@pytest.mark.long
def test_an_agent_is_stopped_in_order_with_tasks_in_its_hands(world):
    """SIGTERM is a drain: what ends in time is kept, and what does not is not run twice."""
    burst = world.burst("agent stopped in order", seconds=2.0, hold=False, width=2 * SLOTS)
    burst.await_started(SLOTS)
    process = burst.busiest().process
    burst.breaks(lambda: process.signal(signal.SIGTERM))
    process.wait(60)
    process.start()
    burst.prove(undisturbed=True)
