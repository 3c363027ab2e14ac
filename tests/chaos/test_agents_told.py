"""What the plane is told about agents it does not have to wait for: seen deaths, and drains."""

from __future__ import annotations

import subprocess

import pytest
from chaoskit.bus import health_of
from chaoskit.world import SLOTS

from jetbridge.agent.mark import read_mark
from jetbridge.contracts.records import Health
from jetbridge.devstack.agents import AgentSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sentinel(shared_world):
    """The sentinel of the agents' site, for the scenarios of this file alone."""
    stack = shared_world.stack
    agent = stack.add_agent(AgentSpec(name="watcher", role="sentinel", queues=()))
    yield agent
    del stack.agents[agent.spec.name]
    agent.process.stop()


@pytest.fixture
def operate(world):
    """Run ``jetbridge agents …`` as an operator on the plane does."""
    used = []

    def operate(*arguments):
        command = world.stack.plane.command("agents", *arguments)
        used.append(arguments)
        return subprocess.run(
            [str(part) for part in command.argv],
            env=dict(command.env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield operate
    if used:
        operate("uncordon", "--site", "here")


def test_an_agent_is_killed_and_its_sentinel_says_so(world, sentinel):
    burst = world.burst("agent killed, attested")
    burst.await_started(SLOTS)
    lost = burst.busiest()
    health = health_reader(world, lost)
    burst.breaks(lost.process.kill)
    burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
    assert (health().health, health().attested) == (Health.LOST, True)
    assert sentinel.spec.name in health().reason
    burst.prove()


def test_an_agent_is_drained_and_hands_its_tasks_over(world, operate):
    burst = world.burst("agent drained, handed over")
    burst.await_started(SLOTS)
    drained = burst.busiest()
    burst.breaks(lambda: operate("drain", drained.spec.name, "--hand-over", "--wait"))
    assert drained.process.wait(60) == 0
    burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
    world.start_agent(drained.process)
    listed = operate("list", drained.spec.name).stdout
    assert " cordoned " in listed, listed  # what took its place idles until it is uncordoned
    burst.prove()
    assert {one.agent for one in burst.attempts() if one.start > burst.broken_at} == {
        name for name in world.stack.agents if name not in (drained.spec.name, "watcher")
    }


@pytest.mark.long
def test_an_agent_is_drained_and_its_tasks_finish(world, operate):
    burst = world.burst("agent drained, tasks finish")
    burst.await_started(SLOTS)
    drained = burst.busiest()
    health = health_reader(world, drained)
    told = operate("drain", drained.spec.name, "--deadline", "1h")
    assert (told.returncode, told.stderr) == (0, ""), told
    burst.wait(lambda: " draining " in operate("list", drained.spec.name).stdout, "the agent to drain")
    burst.prove(undisturbed=True)
    assert drained.process.wait(60) == 0
    assert (health().health, health().attested) == (Health.GONE, True)


def health_reader(world, agent):
    """Return a function that reads the health of the process that this agent is now."""
    mark = read_mark(world.stack.directory / "agents" / agent.spec.name)
    return lambda: health_of(world.stack.nats.url, mark.name, mark.instance)
