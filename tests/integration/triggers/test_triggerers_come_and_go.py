"""Triggerers that are killed, stopped, frozen, cut off; triggers that take their process with them."""

import os
import signal
import subprocess
import uuid

import psutil
import pytest
from airflow.models.callback import Callback
from airflow.models.hitl import HITLDetail
from airflow.providers.standard.triggers.hitl import HITLTrigger
from airflow.sdk import AsyncCallback
from airflow.utils.session import create_session
from site_triggers import BlockingTrigger, DeadlyTrigger, FileTrigger

from .world import forget_triggers

pytestmark = pytest.mark.long

IMPATIENT = {"AIRFLOW__TRIGGERER__RUNNER_HEALTH_CHECK_THRESHOLD": "5"}


class Watched:
    """A trigger that waits for a file, and what it wrote down of itself."""

    def __init__(self, world, directory, name):
        self.world, self.path, self._notes = world, directory / name, directory / f"{name}.notes"
        self.ti, self.id = world.defer(FileTrigger(str(self.path), str(self._notes)))

    @property
    def notes(self):
        """(what, pid) in order."""
        text = self._notes.read_text() if self._notes.exists() else ""
        return [(line.split()[0], int(line.split()[1])) for line in text.splitlines()]

    @property
    def pids(self):
        return [pid for what, pid in self.notes if what == "run"]

    def fire(self):
        self.path.write_text("fired")

    @property
    def has_resumed(self):
        return self.world.state(self.ti) == "scheduled" and self.world.failure(self.ti) is None


@pytest.fixture(autouse=True)
def nothing_left_over(running_plane):  # noqa: ARG001
    forget_triggers()


@pytest.fixture
def watched(world, tmp_path):
    return lambda name="file": Watched(world, tmp_path, name)


@pytest.fixture(scope="module")
def connections(tmp_path_factory):
    """Where the mortal agent writes down what it connects to."""
    return tmp_path_factory.mktemp("connections") / "connections"


@pytest.fixture(scope="module")
def mortal_agent(running_plane, connections):
    env = IMPATIENT | {"CONNECTIONS_FILE": str(connections)}
    agent = running_plane.start_triggerer("mortal", "--stop-seconds", "2", env=env)
    yield agent
    agent.process.kill()


@pytest.fixture
def mortal(mortal_agent):
    """A triggerer to do things to."""
    if not mortal_agent.process.alive:
        mortal_agent.start()
    return mortal_agent


@pytest.fixture(scope="module")
def standby(running_plane):
    """A second triggerer, which takes over."""
    agent = running_plane.start_triggerer("standby", "--stop-seconds", "2", env=IMPATIENT)
    yield agent
    agent.process.kill()


@pytest.fixture
def on(watched, world, eventually):
    """Have a trigger run on a certain triggerer; those that others take first are fired and forgotten."""

    def place(agent):
        for _ in range(100):
            one = watched(f"file-{uuid.uuid4().hex[:8]}")
            holder = eventually(lambda one=one: world.agent_of(one.id))
            eventually(lambda one=one: one.pids)
            if holder == agent.name:
                return one
            one.fire()
        raise AssertionError(f"{agent.name} takes nothing")

    return place


def test_triggers_of_a_killed_triggerer_run_on_another(mortal, standby, on, world, eventually):
    one = on(mortal)
    (runner,) = one.pids
    os.kill(mortal.process.pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(runner), what="the runner dies with its supervisor")
    eventually(lambda: len(one.pids) == 2)
    assert world.agent_of(one.id) == standby.name
    assert "on_kill" not in [what for what, _ in one.notes]
    one.fire()
    eventually(lambda: one.has_resumed)


def test_a_triggerer_that_stops_hands_over_at_once(mortal, standby, on, world, eventually):
    one = on(mortal)
    number = world.holder(one.id)
    mortal.process.stop()
    assert mortal.process.exit_code == 0
    assert world.job(number).state == "success"
    eventually(lambda: len(one.pids) == 2)
    assert world.agent_of(one.id) == standby.name
    assert [what for what, _ in one.notes] == ["run", "cleanup", "run"]


def test_a_drained_triggerer_hands_over_and_exits_with_0(
    mortal, standby, on, world, running_plane, eventually
):
    one = on(mortal)
    command = running_plane.plane.command("agents", "drain", mortal.name)
    env = dict(command.env)
    subprocess.run([str(part) for part in command.argv], env=env, timeout=120, check=True)
    assert mortal.process.wait(60) == 0
    eventually(lambda: len(one.pids) == 2)
    assert world.agent_of(one.id) == standby.name
    again = running_plane.plane.command("agents", "uncordon", mortal.name)
    subprocess.run([str(part) for part in again.argv], env=env, timeout=120, check=True)


def test_a_second_signal_ends_a_triggerer_at_once_and_its_runner_with_it(mortal, standby, on, eventually):
    assert standby.process.alive
    one = on(mortal)
    (runner,) = one.pids
    for _ in range(2):
        mortal.process.signal(signal.SIGTERM)
    assert mortal.process.wait(30) == 0
    eventually(lambda: not psutil.pid_exists(runner), what="the runner dies with its supervisor")
    eventually(lambda: len(one.pids) == 2)


def test_a_frozen_triggerer_releases_what_others_took_and_goes_on(mortal, standby, on, world, eventually):
    one = on(mortal)
    mortal.process.signal(signal.SIGSTOP)
    eventually(lambda: len(one.pids) == 2)
    assert world.agent_of(one.id) == standby.name
    mortal.process.signal(signal.SIGCONT)
    eventually(lambda: ("cleanup", one.pids[0]) in one.notes, what="the first one releases the trigger")
    assert "on_kill" not in [what for what, _ in one.notes]
    one.fire()
    eventually(lambda: one.has_resumed)
    assert on(mortal).pids, "it is given triggers again"


def test_what_fired_while_the_gateway_was_away_is_delivered_once(running_plane, mortal, on, eventually):
    one = on(mortal)
    running_plane.gateway.kill()
    one.fire()
    eventually(lambda: ("cleanup", one.pids[0]) in one.notes, what="the trigger fired and ended")
    assert not one.has_resumed
    running_plane.gateway.start()
    eventually(lambda: one.has_resumed)
    assert len(one.pids) == 1


def test_what_a_killed_triggerer_had_not_delivered_fires_again(running_plane, mortal, on, eventually):
    one = on(mortal)
    running_plane.gateway.kill()
    one.fire()
    eventually(lambda: ("cleanup", one.pids[0]) in one.notes, what="the trigger fired and ended")
    mortal.process.kill()
    running_plane.gateway.start()
    mortal.start()
    eventually(lambda: one.has_resumed)
    assert len(one.pids) == 2


def test_a_triggerer_stops_in_time_although_its_triggers_ask_a_gateway_that_is_away(
    running_plane, mortal, standby, world, eventually
):
    def ask():
        ti = world.task_instance()
        with create_session() as session:  # a question that nobody answers
            session.add(
                HITLDetail(ti_id=uuid.UUID(ti), options=["yes"], subject="?", multiple=False, params={})
            )
        trigger = HITLTrigger(
            ti_id=uuid.UUID(ti), options=["yes"], params={}, timeout_datetime=None, poke_interval=0.05
        )
        return world.defer(trigger, ti_id=ti)[1]

    triggers = []
    while mortal.name not in {world.agent_of(one) for one in triggers}:
        triggers.append(ask())
        eventually(lambda: world.agent_of(triggers[-1]))
    lost = mortal.process.log_tail(1_000_000).count("gateway connection lost")
    running_plane.gateway.kill()
    eventually(lambda: mortal.process.log_tail(1_000_000).count("gateway connection lost") > lost)
    mortal.process.stop()
    running_plane.gateway.start()
    assert mortal.process.exit_code == 0
    assert standby.process.alive


def test_a_bridge_that_restarts_costs_nothing(running_plane, mortal, watched, on, eventually):
    before = on(mortal)
    running_plane.bridge.kill()
    during = watched("during")
    before.fire()
    running_plane.bridge.start()
    eventually(lambda: before.has_resumed)
    during.fire()
    eventually(lambda: during.has_resumed)
    assert len(before.pids) == len(during.pids) == 1


@pytest.mark.parametrize(
    ("trigger", "fires"), [(DeadlyTrigger, "alive"), (BlockingTrigger, "unblocked")], ids=["ends", "blocks"]
)
def test_a_trigger_that_ends_or_blocks_the_runner_does_not_end_its_agent(
    mortal, standby, on, world, eventually, tmp_path, trigger, fires
):
    agents = {agent.name: agent for agent in (mortal, standby)}
    beside = {agent.name: on(agent) for agent in (mortal, standby)}
    pids = {agent.name: agent.process.pid for agent in (mortal, standby)}
    ti, trigger_id = world.defer(trigger(str(tmp_path / "marker")))
    victim = agents[eventually(lambda: world.agent_of(trigger_id))]
    eventually(lambda: world.state(ti) == "scheduled")
    assert world.event(ti) == fires
    eventually(lambda: len(beside[victim.name].pids) == 2)
    assert [name for name in agents if len(beside[name].pids) == 1] == [n for n in agents if n != victim.name]
    assert victim.process.alive
    assert victim.process.pid == pids[victim.name]


def test_a_callback_runs_once_although_two_triggerers_look_for_work(
    mortal, standby, on, eventually, tmp_path
):

    path, notes = tmp_path / "go", tmp_path / "notes"
    with create_session() as session:
        definition = AsyncCallback(
            "site_triggers.long_call_back", kwargs={"path": str(path), "notes": str(notes)}
        )
        callback = Callback.create_from_sdk_def(definition)
        session.add(callback)
        session.flush()
        callback.queue(session=session)
        callback_id = callback.id
    eventually(notes.exists)
    assert on(standby), "both look for work"
    assert on(mortal)
    assert len(notes.read_text().splitlines()) == 1
    path.touch()

    def state():
        with create_session() as session:
            return session.get(Callback, callback_id).state

    eventually(lambda: state() == "success")


def test_no_database_is_opened_by_a_triggerer(running_plane, mortal, on, eventually, connections, s3):
    """The hook has been there in every test before, too."""
    one = on(mortal)
    one.fire()
    eventually(lambda: one.has_resumed)
    gateway, store = (url.rpartition(":")[2] for url in (running_plane.gateway_url, s3.endpoint_url))
    found = connections.read_text().splitlines()
    assert any(f"{gateway})" in line for line in found), "the hook must have seen something"
    assert [line for line in found if not any(f" {port})" in line for port in (gateway, store))] == []


def test_capacity_and_queues_decide_who_runs_what(
    running_plane, world, eventually, tmp_path, mortal_agent, standby
):
    for agent in (mortal_agent, standby):
        agent.process.stop()
    path = tmp_path / "go"
    small = running_plane.start_triggerer("small", "--capacity", "2")
    gpu = running_plane.start_triggerer("gpu", "--queues", "gpu,tpu")
    plain = [world.defer(FileTrigger(str(path))) for _ in range(5)]
    queued = [world.defer(FileTrigger(str(path)), queue="gpu") for _ in range(3)]
    nobodys = world.defer(FileTrigger(str(path)), queue="unknown")
    eventually(lambda: [world.agent_of(one) for _, one in queued] == [gpu.name] * 3)
    eventually(lambda: [world.agent_of(one) for _, one in plain].count(small.name) == 2)
    assert [world.agent_of(one) for _, one in plain].count(None) == 3
    path.touch()
    eventually(lambda: all(world.state(ti) == "scheduled" for ti, _ in plain + queued))
    assert world.state(nobodys[0]) == "deferred"
    for agent in (small, gpu):
        agent.process.kill()
