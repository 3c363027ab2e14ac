"""The disk under JetStream, or under an agent, is full to the last byte in the middle of a burst."""

from __future__ import annotations

import time

import pytest
from chaoskit.burst import Burst
from chaoskit.faults import full, process_of, small_disk
from chaoskit.world import DAGS, LEASE_SECONDS, SLOTS, World

from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.stack import DevStack, StackOptions

pytestmark = [pytest.mark.slow, pytest.mark.long]

FULL_SECONDS = 10.0


@pytest.fixture(scope="module")
def cramped(tmp_path_factory, recoveries):
    """Yield a world whose NATS and whose agent ``one`` each have a small disk of their own."""
    directory = tmp_path_factory.mktemp("cramped")
    options = StackOptions(
        dags=DAGS,
        agents=(AgentSpec(name="one", slots=SLOTS), AgentSpec(name="two", slots=SLOTS)),
        lease_seconds=LEASE_SECONDS,
        directory=directory / "stack",
        nats_max_store="8G",  # what the streams reserve, which is more than there is: a disk others write to
    )
    (directory / "marks").mkdir()
    store, agent = (options.directory / part for part in ("nats/store", "agents/one"))
    with small_disk(store, "64m"), small_disk(agent, "64m"), DevStack(options) as stack:
        stack.client.await_dag("burst")
        stack.client.unpause("burst")
        yield World(stack, recoveries, directory / "marks", {}), store, agent


def test_the_disk_of_jetstream(cramped):
    """What was acknowledged is kept, what cannot be stored is refused and waits; nothing is lost."""
    world, store, _ = cramped
    burst = world.burst("disk of JetStream full", width=3 * SLOTS, seconds=1.0, hold=False)
    burst.await_started(1)
    with full(store):
        time.sleep(FULL_SECONDS)  # the length is what is tried
    # nats-server turns JetStream off when a write fails for lack of space, and on at its start only: what
    # supervises it (Kubernetes through /healthz) restarts it.
    process_of(world.stack.nats).kill()
    burst.breaks(world.stack.nats.start)
    world.mend()
    burst.prove()


def test_the_disk_of_an_agent(cramped):
    """
    Its tasks may fail, for their logs cannot be written; nothing runs twice, hangs or spreads.

    When there is space again the agent works as before, without a restart.
    """
    world, _, agent = cramped
    with full(agent):
        burst = world.burst("disk of an agent full", width=2 * SLOTS, seconds=1.0, hold=False)
        burst.wait(lambda: burst.state() in ("success", "failed"), "the run to end")
        burst.prove_nothing_ran_twice()
    after: Burst = world.burst("disk of an agent full, then free", width=2 * SLOTS, seconds=1.0, hold=True)
    after.await_started(2 * SLOTS)  # needs every slot of both agents
    after.prove(undisturbed=True)
