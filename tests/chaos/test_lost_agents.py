"""
An agent is lost with a task in its hands: the task runs elsewhere, never twice at the same time.

Everything is real: agents in network namespaces of their own where the machine allows it, links that are
cut, processes killed with SIGKILL. Every attempt writes marks; a checker reads from them what ran when.
"""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.stack import DevStack, StackOptions

pytestmark = pytest.mark.slow

DAG_ID = "marks"
PATIENCE_SECONDS = 150
LEASE_SECONDS = 15.0
AGENTS = (AgentSpec(name="one"), AgentSpec(name="two"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    options = StackOptions(
        dags=Path(__file__).parent / "dags",
        agents=AGENTS,
        lease_seconds=LEASE_SECONDS,
        directory=tmp_path_factory.mktemp("failover"),
    )
    with DevStack(options) as stack:
        stack.client.await_dag(DAG_ID)
        stack.client.unpause(DAG_ID)
        yield stack


class Run:
    """One run of the Dag, and the marks its attempts left."""

    def __init__(self, stack, directory):
        self.stack = stack
        self.directory = directory
        self.run_id = stack.client.trigger(DAG_ID, {"directory": str(directory)})

    def marks(self):
        path = self.directory / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def agents(self):
        """Return the agents that ran it, in the order of their first marks."""
        return list(dict.fromkeys(mark["agent"] for mark in self.marks()))

    def await_agents(self, count):
        self.stack.client.wait(
            lambda: len(self.agents()) >= count,
            f"attempt {count} to show that it runs",
            timeout_seconds=PATIENCE_SECONDS,
            check=lambda: None,
        )
        return self.agents()

    def let_go(self):
        (self.directory / "go").touch()

    def assert_one_at_a_time(self):
        """The check that counts: the last mark of each attempt is before the first of the next."""
        attempts = {}
        for mark in self.marks():
            attempts.setdefault(mark["ti"], []).append(mark["at"])
        spans = sorted((min(at), max(at)) for at in attempts.values())
        for (_, end), (begin, _) in pairwise(spans):
            assert end < begin, spans
        return len(spans)

    def assert_succeeded_after_a_reroute(self, lost):
        state = self.stack.await_run(
            DAG_ID, self.run_id, timeout_seconds=PATIENCE_SECONDS, check=lambda: None
        )
        (instance,) = self.stack.client.task_instances(DAG_ID, self.run_id)
        assert (state, instance["state"]) == ("success", "success")
        assert instance["hostname"] != lost
        # The task has retries=0: it could not have run again if the loss had cost it one.
        assert [one["state"] for one in self.stack.client.tries(instance)] == ["failed", "success"]
        assert self.assert_one_at_a_time() == 2
        entries = self.stack.client.get("eventLogs", dag_id=DAG_ID, run_id=self.run_id)["event_logs"]
        (rerouted,) = [entry for entry in entries if entry["event"] == "jetbridge.rerouted"]
        assert f"agent {lost}" in rerouted["extra"]


@pytest.fixture
def run(stack, tmp_path):
    run = Run(stack, tmp_path)
    yield run
    run.let_go()


@pytest.mark.long
def test_an_agent_is_killed_and_its_task_runs_on_another_when_the_lease_is_over(stack, run):
    (lost,) = run.await_agents(1)
    stack.agents[lost].process.kill()
    assert run.await_agents(2)[1] != lost
    run.let_go()
    run.assert_succeeded_after_a_reroute(lost)
    stack.agents[lost].process.start()


def test_a_killed_agent_that_comes_back_lets_go_of_its_old_task_at_once(stack, run):
    (lost,) = run.await_agents(1)
    stack.agents[lost].process.kill()
    stack.agents[lost].process.start()
    stack.client.wait(
        lambda: run.assert_one_at_a_time() >= 2,
        "the second attempt",
        timeout_seconds=PATIENCE_SECONDS,
        check=lambda: None,
    )
    run.let_go()
    state = stack.await_run(DAG_ID, run.run_id, timeout_seconds=PATIENCE_SECONDS)
    assert state == "success"
    assert run.assert_one_at_a_time() == 2


@pytest.mark.long
def test_an_agent_that_hangs_does_not_keep_its_task_running(stack, run):
    (lost,) = run.await_agents(1)
    os.kill(stack.agents[lost].process.pid, signal.SIGSTOP)  # the agent; its fork server lives on
    try:
        assert run.await_agents(2)[1] != lost
        run.let_go()
        run.assert_succeeded_after_a_reroute(lost)
    finally:
        os.kill(stack.agents[lost].process.pid, signal.SIGCONT)


@pytest.mark.long
@pytest.mark.parametrize("direction", ["requests", "answers"])
def test_a_link_cut_for_longer_than_the_lease(stack, run, direction):
    (lost,) = run.await_agents(1)
    namespace = isolated(stack, lost)
    getattr(namespace, f"cut_{direction}")()
    try:
        assert run.await_agents(2)[1] != lost
    finally:
        namespace.heal()
    run.let_go()
    run.assert_succeeded_after_a_reroute(lost)


def test_a_link_cut_for_less_than_the_lease_is_noticed_by_no_task(stack, run):
    (agent,) = run.await_agents(1)
    namespace = isolated(stack, agent)
    namespace.cut_answers()
    time.sleep(LEASE_SECONDS / 3)  # the length of the outage is what is tested
    namespace.heal()
    run.let_go()
    state = stack.await_run(DAG_ID, run.run_id, timeout_seconds=PATIENCE_SECONDS)
    (instance,) = stack.client.task_instances(DAG_ID, run.run_id)
    assert (state, instance["try_number"], instance["hostname"]) == ("success", 1, agent)
    assert run.assert_one_at_a_time() == 1


def isolated(stack, agent):
    namespace = stack.agents[agent].namespace
    if namespace is None:
        pytest.skip(f"agents have no network of their own here: {stack.not_isolated_because}")
    return namespace
