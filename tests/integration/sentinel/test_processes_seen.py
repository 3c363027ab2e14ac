"""A site's sentinel and real processes: it says that an agent is gone when that is true, and not before."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from jetbridge.agent.mark import MARK_FILE, all_gone, leave_mark, read_mark
from jetbridge.agent.settings import AgentSettings
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.sentinel.site import processes
from jetbridge.sentinel.site.processes import ProcessWatcher, open_process
from jetbridge.sentinel.site.view import SiteView

SITE = "here"
AGENT = """
import os, subprocess, sys, time
from pathlib import Path
from jetbridge.agent.mark import INSTANCE_VARIABLE, leave_mark
from jetbridge.agent.settings import AgentSettings
directory, instance, children = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
settings = AgentSettings(gateway="https://g", token_file="t", name="a1", site="here", data_dir=directory)
with leave_mark(settings, instance, "worker") as mark:
    if children == "fork":
        if os.fork() == 0:
            (directory / "child").write_text(str(os.getpid()))
            time.sleep(600)
            os._exit(0)
    if children == "exec":
        child = subprocess.Popen(["sleep", "600"], env={**os.environ, INSTANCE_VARIABLE: instance},
                                 start_new_session=True)
        (directory / "child").write_text(str(child.pid))
    if children == "end":
        sys.stdin.read()
    else:
        time.sleep(600)
"""


def settings(directory, **changes):
    options = {"gateway": "https://g", "token_file": "t", "name": "a1", "site": SITE, **changes}
    return AgentSettings(data_dir=directory, **options)


class Agent:
    """A process that marks a directory as an agent does, with one child of some kind."""

    def __init__(self, directory, children=""):
        directory.mkdir(exist_ok=True)
        self.directory, self.instance = directory, secrets.token_hex(16)
        self.children = children
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(directory), self.instance, children], stdin=subprocess.PIPE
        )
        waiting_for = {"fork": "child", "exec": "child"}.get(children, MARK_FILE)
        deadline = time.monotonic() + 60
        while not (directory / waiting_for).exists() or read_mark(directory) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def child(self):
        return int((self.directory / "child").read_text())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        for pid in filter(None, (self.process.pid, self.child if self.children in ("fork", "exec") else 0)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self.process.stdin.close()


@pytest.fixture
def start(tmp_path):
    agents = []

    def start(children="", directory="a1"):
        agents.append(Agent(tmp_path / directory, children))
        return agents[-1]

    yield start
    for agent in agents:
        agent.end()


class Watching:
    """A watcher over everything below a directory."""

    def __init__(self, directory):
        self.view, self.tasks = SiteView(), SideTasks()
        watcher = ProcessWatcher((f"{directory}/*",), SITE, self.view, self.tasks, 0.05)
        self.tasks.run_forever("watch", watcher.run())

    def states(self):
        return [(one.agent, one.state, one.healthy) for one in self.view.agents]

    async def until(self, condition, seconds=60):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def end(self):
        return await asyncio.wait_for(self.view.ends.get(), 60)


@pytest.fixture
async def watching(tmp_path):
    watching = Watching(tmp_path)
    yield watching
    await watching.tasks.cancel()


async def test_an_agent_that_is_killed_is_told_at_once_by_name_and_instance(start, watching):
    agent = start()
    await watching.until(lambda: watching.states() == [("a1", "running", True)])
    agent.kill()
    end = await watching.end()
    assert (end.agent, end.instance) == ("a1", agent.instance)
    await watching.until(lambda: watching.states() == [("a1", "ended", False)])


async def test_one_that_died_before_the_sentinel_began_is_told_as_well(start, tmp_path):
    agent = start()
    agent.kill()
    late = Watching(tmp_path)
    assert (await late.end()).instance == agent.instance
    await late.tasks.cancel()


@pytest.mark.parametrize("children", ["fork", "exec"])
async def test_nothing_is_told_while_anything_that_it_started_still_runs(start, watching, children):
    """A fork holds the mark's lock; a program started by exec, in a session of its own, has the variable."""
    agent = start(children)
    await watching.until(lambda: watching.states() == [("a1", "running", True)])
    agent.kill()
    await watching.until(lambda: watching.states() == [("a1", "ending", False)])
    assert watching.view.ends.empty()
    os.kill(agent.child, signal.SIGKILL)
    assert (await watching.end()).instance == agent.instance


async def test_an_agent_that_stopped_in_order_is_well_and_its_end_is_told_all_the_same(start, watching):
    agent = start("end")
    await watching.until(lambda: watching.states() == [("a1", "running", True)])
    agent.process.stdin.close()
    assert (await watching.end()).instance == agent.instance
    await watching.until(lambda: watching.states() == [("a1", "stopped", True)])


async def test_the_next_process_in_the_same_place_is_what_there_is_to_see(start, watching):
    first = start()
    await watching.until(lambda: watching.states() == [("a1", "running", True)])
    first.kill()
    second = start()
    assert (await watching.end()).instance == first.instance
    await watching.until(
        lambda: [(one.instance, one.state) for one in watching.view.agents] == [(second.instance, "running")]
    )
    assert watching.view.ends.empty()


async def test_a_process_that_is_stopped_shows_as_hung_and_is_not_dead(start, watching):
    agent = start()
    os.kill(agent.process.pid, signal.SIGSTOP)
    await watching.until(lambda: watching.states() == [("a1", "hung", False)])
    os.kill(agent.process.pid, signal.SIGCONT)
    await watching.until(lambda: watching.states() == [("a1", "running", True)])
    assert watching.view.ends.empty()


async def test_another_process_with_the_number_is_not_taken_for_the_agent(start):
    mark = read_mark(start().directory)
    assert open_process(msgspec.structs.replace(mark, started_ticks=mark.started_ticks - 1)) is None
    assert open_process(msgspec.structs.replace(mark, pid_namespace="pid:[1]")) is None
    os.close(open_process(mark))


@pytest.mark.parametrize("blindness", ["other user", "other namespace"])
async def test_what_cannot_be_seen_whole_is_not_told(start, watching, monkeypatch, blindness):
    agent = start()
    await watching.until(lambda: watching.states() == [("a1", "running", True)])
    if blindness == "other user":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        monkeypatch.setattr(processes, "pid_namespace", lambda: "pid:[1]")
    agent.kill()
    await watching.until(lambda: watching.states() == [("a1", "ended", False)])
    assert watching.view.ends.empty()
    assert watching.view.agents[0].detail.startswith("not told to the plane: it runs")


async def test_agents_of_other_sites_and_strange_files_are_left_alone(tmp_path, start, watching):
    start()
    for number, text in enumerate((b"", b"{}", b'{"name": 1}', b"\xff")):
        directory = tmp_path / f"strange-{number}"
        directory.mkdir()
        (directory / MARK_FILE).write_bytes(text)
    other = tmp_path / "other"
    other.mkdir()
    with leave_mark(settings(other, name="b1", site="elsewhere"), "f" * 32, "worker"):
        await watching.until(lambda: watching.states() == [("a1", "running", True)])
    assert len(watching.states()) == 1


def test_locks_of_processes_that_are_gone_are_swept(tmp_path):
    with leave_mark(settings(tmp_path), "0" * 32, "worker"):
        assert all_gone(tmp_path, "0" * 32) is False
    assert all_gone(tmp_path, "0" * 32) is True
    with leave_mark(settings(tmp_path), "1" * 32, "worker"):
        assert all_gone(tmp_path, "0" * 32) is None
    assert read_mark(tmp_path).stopped


def test_a_container_is_told_who_it_is(tmp_path):
    with leave_mark(settings(tmp_path, termination_log=tmp_path / "log"), "0" * 32, "worker"):
        assert msgspec.json.decode((tmp_path / "log").read_bytes())["instance"] == "0" * 32
