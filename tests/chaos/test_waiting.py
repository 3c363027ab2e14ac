"""Tasks under ``wait``: an outage of several leases costs none of them, and none runs a second time."""

from __future__ import annotations

import os
import time

import pytest
from chaoskit.faults import cut
from chaoskit.world import AGENTS, DAGS, LEASE_SECONDS, SLOTS, World

from jetbridge.contracts.records import OnAgentLost
from jetbridge.devstack.stack import DevStack, StackOptions

pytestmark = pytest.mark.slow

QUEUE = "queue:default"
OUTAGE_SECONDS = float(os.environ.get("OUTAGE") or 4 * LEASE_SECONDS)
"""Of the long outage; ``make outage`` has it last half an hour."""

HEARTBEAT_TIMEOUT_SECONDS = 20
"""Of the scheduler, in the world of the long outage: a part of the outage, as 300 s are of hours."""


@pytest.fixture
def waits():
    """Return a function that has the tasks of a world wait for their agents."""
    changed = []

    def set_policy(world, seconds=600.0):
        world.set_policy(QUEUE, on_agent_lost=OnAgentLost.WAIT, wait_seconds=seconds)
        changed.append(world)

    yield set_policy
    for one in changed:
        one.set_policy(QUEUE)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory, recoveries):
    """Yield a world whose Airflow misses the heartbeats of tasks soon."""
    directory = tmp_path_factory.mktemp("impatient")
    options = StackOptions(
        dags=DAGS,
        agents=AGENTS,
        lease_seconds=LEASE_SECONDS,
        directory=directory / "stack",
        plane_extra={
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT_SECONDS),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        },
    )
    with DevStack(options) as stack:
        stack.client.await_dag("burst")
        stack.client.unpause("burst")
        (directory / "marks").mkdir()
        yield World(stack, recoveries, directory / "marks", {})


def ends(burst):
    """Have all tasks end, wherever they run, and wait until they have."""
    burst.let_go()
    burst.wait(lambda: all(one.finished for one in burst.attempts()), "the tasks to end in the outage")


def test_a_link_that_is_cut_for_longer_than_the_lease_costs_no_task_that_waits(world, waits):
    waits(world)
    burst = world.burst("link cut for longer than the lease, wait")
    burst.await_started(SLOTS)
    with cut(burst.busiest(), "answers", world.stack.not_isolated_because):
        time.sleep(LEASE_SECONDS * 1.6)  # the length of the cut is what is tested
        ends(burst)
    burst.breaks(lambda: None)
    burst.prove(undisturbed=True)


@pytest.mark.long
def test_an_outage_of_many_leases_and_of_airflows_patience_costs_no_task_that_waits(impatient, waits):
    waits(impatient, OUTAGE_SECONDS + 600)
    burst = impatient.burst(f"link cut for {OUTAGE_SECONDS:g} s, wait")
    burst.await_started(SLOTS)
    with cut(burst.busiest(), "requests", impatient.stack.not_isolated_because):
        time.sleep(OUTAGE_SECONDS)
        ends(burst)
    burst.breaks(lambda: None)
    burst.prove(undisturbed=True)


@pytest.mark.long
def test_a_worker_that_is_killed_in_the_outage_delivers_what_its_tasks_said_after_it(world, waits):
    waits(world)
    burst = world.burst("worker killed while cut off, wait")
    burst.await_started(SLOTS)
    agent = burst.busiest()
    with cut(agent, "answers", world.stack.not_isolated_because):
        time.sleep(LEASE_SECONDS * 1.2)
        ends(burst)
        outbox = world.stack.directory / "agents" / agent.spec.name / "outbox"
        running = sum(one.agent == agent.spec.name for one in burst.attempts() if one.task != "indices[0]")
        burst.wait(lambda: len(list(outbox.glob("*.sqlite"))) == running, "all ends to be kept")
        agent.process.kill()
        agent.process.start()
    burst.breaks(lambda: None)
    burst.prove(undisturbed=True)


@pytest.mark.long
def test_every_gateway_is_away_for_several_leases(world, waits):
    waits(world)
    burst = world.burst("all gateways away for three leases, wait")
    burst.await_started(SLOTS)
    for gateway in world.plane("gateway"):
        gateway.kill()
    time.sleep(3 * LEASE_SECONDS)
    ends(burst)
    burst.breaks(lambda: world.start_again("gateway"))
    burst.prove(undisturbed=True)


@pytest.mark.long
def test_when_the_wait_is_over_the_tasks_fail_and_do_not_run_again(world, waits):
    waits(world, LEASE_SECONDS * 1.5)
    burst = world.burst("link cut for longer than the wait")
    burst.await_started(SLOTS)
    agent = burst.busiest()
    theirs = {one.task for one in burst.attempts() if one.agent == agent.spec.name and not one.finished}
    with cut(agent, "answers", world.stack.not_isolated_because):
        burst.breaks(lambda: None)
        burst.wait(lambda: failed(burst) == theirs, "the tasks of the silent agent to fail")
        burst.note_recovery()
    burst.let_go()
    burst.wait(lambda: burst.state() == "failed", "the run to end")
    burst.prove_nothing_ran_twice()
    assert failed(burst) == theirs
    assert len(burst.attempts()) == SLOTS + 1


def failed(burst):
    instances = burst.stack.client.task_instances(burst.dag_id, burst.run_id)
    return {f"{one['task_id']}[{one['map_index']}]" for one in instances if one["state"] == "failed"}
