"""Parts of the plane are killed, hang and are restarted under load: work waits at most, and then ends."""

from __future__ import annotations

import contextlib
import time

import pytest
from chaoskit.faults import frozen, process_of
from chaoskit.world import SLOTS

pytestmark = pytest.mark.slow

IN_TURN = ("router", "sentinel", "bridge", "scheduler")
OUTAGE_SECONDS = 60.0


@pytest.mark.long
def test_one_gateway_is_killed(world, chance):
    burst = world.burst("one gateway killed", width=3 * SLOTS, seconds=1.0, hold=False)
    burst.await_started(chance.randint(1, SLOTS))
    burst.breaks(chance.choice(world.plane("gateway")).kill)
    burst.prove(undisturbed=True)


@pytest.mark.long
def test_all_gateways_are_killed_and_started_again(world, chance):
    burst = world.burst("all gateways killed, started again", width=3 * SLOTS, seconds=1.0, hold=False)
    burst.await_started(chance.randint(1, SLOTS))
    burst.breaks(lambda: world.restart("gateway"))
    burst.prove(undisturbed=True)


def test_router_and_bridge_are_killed_while_they_have_work(world, chance):
    """An agent loses its tasks, and who should put them back dies on it, at a random moment, twice."""
    burst = world.burst("agent, router and bridge killed")
    burst.await_started(SLOTS)
    agent = burst.busiest().process
    burst.breaks(agent.kill)
    agent.start()
    for _ in range(2):
        time.sleep(chance.uniform(0, 5))  # the moment is what is tried
        world.restart("router")
        world.restart("bridge")
    burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin again")
    burst.prove()


@pytest.mark.long
def test_a_part_of_the_plane_is_killed_at_a_random_moment(world, chance, round_number):
    """In every second round an agent loses what it holds, so that the part has something to do."""
    part = IN_TURN[round_number % len(IN_TURN)]
    loses_agent = chance.random() < 0.5
    name = f"{part} killed at random{', and an agent' if loses_agent else ''}"
    burst = world.burst(name, width=3 * SLOTS, seconds=chance.uniform(0.2, 2.0), hold=False)
    time.sleep(chance.uniform(0, 6))
    if loses_agent:
        agent = world.stack.agents[chance.choice(sorted(world.stack.agents))].process
        agent.kill()
        agent.start()
        time.sleep(chance.uniform(0, 3))
    burst.breaks(lambda: [process.kill() for process in world.plane(part)])
    time.sleep(chance.uniform(0, 3))
    world.restart(part)
    burst.prove(undisturbed=not loses_agent)


@pytest.mark.long
@pytest.mark.parametrize("way", ["stopped", "killed"])
@pytest.mark.parametrize("name", ["redis", "postgres", "api-server", "nats"])
def test_what_everything_depends_on_is_away_for_a_minute(world, name, way):
    """
    The lease here is a quarter of the outage. Only NATS is needed to prolong one, so only without NATS do
    agents have to give up what they run, and it runs again; else no task may notice.
    """
    burst = world.burst(f"{name} {way} for {OUTAGE_SECONDS:g} s", width=3 * SLOTS, seconds=2.0, hold=False)
    burst.await_started(1)
    process = process_of(getattr(world.stack, name)) if name != "api-server" else world.plane(name)[0]
    with contextlib.ExitStack() as away:
        if way == "stopped":
            burst.breaks(lambda: away.enter_context(frozen(process)))
        else:
            burst.breaks(process.kill)
        time.sleep(OUTAGE_SECONDS)  # the length of the outage is what is tested
    # Airflow's scheduler ends without its database; what supervises it on a real plane starts it again.
    world.mend()
    burst.healed()
    burst.prove(undisturbed=name != "nats")


@pytest.mark.long
def test_everything_is_restarted_one_after_the_other_under_load(world):
    burst = world.burst("rolling restart of everything", width=60, seconds=1.0, hold=False)
    burst.await_started(1)
    burst.breaks(lambda: None)
    for part in ("gateway", "router", "sentinel", "bridge", "scheduler", "api-server"):
        for process in world.plane(part):
            process.stop()
            world.start_again(part)
    for agent in world.stack.agents.values():
        agent.process.stop()
        world.start_agent(agent.process)
    for name in ("redis", "nats", "postgres"):
        server = getattr(world.stack, name)
        process_of(server)
        server.stop()
        server.start()
    burst.prove(undisturbed=True)
