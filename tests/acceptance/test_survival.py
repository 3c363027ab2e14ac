"""
Any one process of the plane may die in the middle of a run, and no task is lost, failed or run twice.

Everything is real; each test breaks one thing while the tasks of a run are held, and lets them go after.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from jetbridge.devstack.stack import DevStack

pytestmark = pytest.mark.slow

DAG_ID = "held"
WIDTH = 4
PATIENCE_SECONDS = 120
STAYS, LEAVES = "east", "west"
"""The workers; both serve the queue, with enough slots for all tasks."""


@pytest.fixture(scope="module")
def stack(site):
    site.client.await_dag(DAG_ID)
    site.client.unpause(DAG_ID)
    return site


@dataclass
class HeldRun:
    """One run whose first tasks wait until :meth:`let_go`."""

    stack: DevStack
    directory: Path
    run_id: str = ""

    def trigger(self):
        self.run_id = self.stack.client.trigger(DAG_ID, {"directory": str(self.directory)})

    @property
    def started(self):
        return sorted(int(path.name.split("-")[1]) for path in self.directory.glob("started-*"))

    def await_started(self):
        eventually(lambda: len(self.started) >= WIDTH, f"the start of {WIDTH} tasks")

    def let_go(self):
        (self.directory / "go").touch()

    def assert_all_ran_exactly_once(self):
        # Not check=stack.check_alive: a process that the test killed stays dead in some tests.
        state = self.stack.await_run(
            DAG_ID, self.run_id, timeout_seconds=PATIENCE_SECONDS, check=lambda: None
        )
        instances = self.stack.client.task_instances(DAG_ID, self.run_id)
        assert state == "success", instances
        assert self.started == list(range(WIDTH))
        assert {one["try_number"] for one in instances} == {1}
        assert (self.directory / "total").read_text() == str(sum(range(WIDTH)))


@pytest.fixture
def held_run(stack, tmp_path):
    return HeldRun(stack, tmp_path)


def eventually(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.05)


def revive(stack, *processes):
    for process in processes:
        process.start()
    stack.check_alive()


def test_one_of_two_gateways_is_killed(stack, held_run):
    held_run.trigger()
    held_run.await_started()
    stack.gateways[0].kill()
    held_run.let_go()
    held_run.assert_all_ran_exactly_once()
    revive(stack, stack.gateways[0])


def test_all_gateways_are_killed_and_come_back(stack, held_run):
    held_run.trigger()
    held_run.await_started()
    for gateway in stack.gateways:
        gateway.kill()
    held_run.let_go()  # the tasks end while there is nobody to tell
    revive(stack, *stack.gateways)
    held_run.assert_all_ran_exactly_once()


def test_the_scheduler_is_killed_and_its_successor_adopts_what_runs(stack, held_run):
    held_run.trigger()
    held_run.await_started()
    stack.airflow.scheduler.kill()
    revive(stack, stack.airflow.scheduler)
    held_run.let_go()
    held_run.assert_all_ran_exactly_once()


def test_the_scheduler_is_killed_and_the_tasks_end_while_there_is_none(stack, held_run):
    held_run.trigger()
    held_run.await_started()
    stack.airflow.scheduler.kill()
    held_run.let_go()
    eventually(lambda: not running(stack, held_run), "the end of the held tasks")
    revive(stack, stack.airflow.scheduler)
    held_run.assert_all_ran_exactly_once()


def running(stack, held_run):
    instances = stack.client.task_instances(DAG_ID, held_run.run_id)
    return [one for one in instances if one["state"] == "running"]


def test_nats_is_away_when_the_tasks_are_queued(stack, held_run):
    stack.nats.kill()
    held_run.trigger()
    eventually(lambda: queued(stack, held_run), "the tasks to be queued")
    stack.nats.start()
    held_run.let_go()
    held_run.assert_all_ran_exactly_once()


def queued(stack, held_run):
    instances = stack.client.task_instances(DAG_ID, held_run.run_id)
    return len([one for one in instances if one["state"] == "queued"]) == WIDTH


def test_nats_is_killed_while_the_tasks_run(stack, held_run):
    held_run.trigger()
    held_run.await_started()
    stack.nats.kill()
    held_run.let_go()  # the ends must be reported to a bus that is not there
    stack.nats.start()
    held_run.assert_all_ran_exactly_once()


@pytest.mark.long  # starting the api-server takes a quarter of a minute; make chaos has it away, too
def test_the_api_server_is_killed_while_the_tasks_run(stack, held_run):
    held_run.trigger()
    held_run.await_started()
    stack.airflow.api_server.kill()
    held_run.let_go()
    revive(stack, stack.airflow.api_server)
    stack.airflow.wait_ready()
    held_run.assert_all_ran_exactly_once()


def test_redis_is_away_for_a_whole_run(stack, held_run):
    stack.redis.kill()
    try:
        held_run.trigger()
        held_run.await_started()
        held_run.let_go()
        held_run.assert_all_ran_exactly_once()
    finally:
        stack.redis.start()


def test_an_agent_told_to_stop_finishes_its_tasks_and_takes_no_new_ones(stack, held_run):
    leaving = stack.agents[LEAVES].process
    held_run.trigger()
    held_run.await_started()
    leaving.ask_to_stop()
    leaving.wait_ready(lambda: "draining" in leaving.log_tail(), timeout_seconds=PATIENCE_SECONDS)
    held_run.let_go()
    assert leaving.wait(PATIENCE_SECONDS) == 0
    held_run.assert_all_ran_exactly_once()
    instances = stack.client.task_instances(DAG_ID, held_run.run_id)
    assert {one["hostname"] for one in instances if one["task_id"] == "total"} == {STAYS}
    leaving.start()


def test_a_task_killed_by_the_kernel_fails_and_the_others_end(stack, held_run):
    held_run.trigger()
    held_run.await_started()
    victim = held_task_process(stack)
    victim.send_signal(signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(victim.pid), "the end of the killed process")
    held_run.let_go()
    state = stack.await_run(DAG_ID, held_run.run_id, timeout_seconds=PATIENCE_SECONDS)
    instances = stack.client.task_instances(DAG_ID, held_run.run_id)
    assert state == "failed"
    held = sorted(one["state"] for one in instances if one["task_id"] == "hold")
    assert held == ["failed", *["success"] * (WIDTH - 1)]


def held_task_process(stack):
    children = [
        child
        for name in (STAYS, LEAVES)
        for child in psutil.Process(stack.agents[name].process.pid).children(recursive=True)
    ]
    # The task's own process is a leaf of agent → fork server → supervisor → task.
    return next(child for child in children if not child.children())
