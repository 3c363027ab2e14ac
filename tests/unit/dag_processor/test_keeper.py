"""The agent answers its manager, notices its death and silence, and starts another one."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from jetbridge.agent.errors import GatewayUnavailableError, LeaseLostError, RequestRefusedError
from jetbridge.dag_processor.keeper import Launch, ManagerKeeper

ASK = """
import socket, sys, time
from jetbridge.dag_processor.plane import *
import msgspec

class Word(msgspec.Struct):
    word: str

plane = Plane(socket.socket(fileno=int(sys.argv[1])))
"""


class FakeLeases:
    def __init__(self):
        self.epochs, self.wanted = {"a": 3}, []
        self.opened = ("dag-docs",)

    def want(self, bundles):
        self.wanted.append(bundles)


class FakeSession:
    def __init__(self):
        self.asked, self.error = [], None

    async def relay(self, operation, body, wait_seconds):
        assert wait_seconds > 0
        self.asked.append((operation, body))
        if self.error:
            raise self.error
        return b'{"word": "answer"}'


@pytest.fixture
def keep(tmp_path):
    """Keep a manager that runs a script in place of Airflow's; yields the keeper and what it speaks to."""

    @asynccontextmanager
    async def keep(script, stuck_seconds=60):
        path = tmp_path / "manager.py"
        path.write_text(ASK + script)
        launch = SimpleNamespace(
            env=dict(os.environ),
            command=lambda descriptor: [sys.executable, str(path), str(descriptor)],
            inherited=(),
        )
        leases, session = FakeLeases(), FakeSession()
        keeper = ManagerKeeper(launch, leases, session, stuck_seconds, parsed=lambda _seconds: None)
        task = asyncio.create_task(keeper.run())
        try:
            yield SimpleNamespace(keeper=keeper, leases=leases, session=session, directory=tmp_path)
        finally:
            await keeper.stop(10, asyncio.Event())
            task.cancel()
            await asyncio.wait({task})

    return keep


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def note(name, value):
    return f"open({name!r}, 'a').write(str({value}) + chr(10))\n"


def written(path):
    return path.read_text().splitlines() if path.exists() else []


async def test_questions_are_answered_by_the_gateway_or_by_the_agent_itself(keep, tmp_path):
    report = tmp_path / "report"
    script = (
        "plane.ready(('a', 'b'))\n"
        + note(str(report), "plane.held().epochs")
        + note(str(report), "plane.ask('parsed', Word(word='question'), Word).word")
        + "time.sleep(3600)\n"
    )
    async with keep(script) as kept:
        await until(lambda: len(written(report)) == 2)
        assert written(report) == ["{'a': 3}", "answer"]
        assert kept.leases.wanted == [("a", "b")]
        assert kept.session.asked == [("parsed", b'{"word":"question"}')]


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (GatewayUnavailableError("away"), "PlaneUnavailableError('away')"),
        (TimeoutError(), "PlaneUnavailableError('no answer in time')"),
        (LeaseLostError("gone"), "BundleLostError('gone')"),
        (RequestRefusedError("bad"), "PlaneRefusedError('bad')"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_errors_are_told_apart(keep, tmp_path, error, seen):
    report = tmp_path / "report"
    script = "time.sleep(0.1)\ntry: plane.ask('parsed', Word(word='q'), Word)\nexcept PlaneError as error: "
    async with keep(script + note(str(report), "repr(error)") + "time.sleep(3600)\n") as kept:
        kept.session.error = error
        await until(lambda: written(report))
        assert written(report)[-1] == seen


async def test_a_manager_that_died_is_started_again_and_no_bundle_is_wanted_meanwhile(keep, tmp_path):
    starts = tmp_path / "starts"
    script = note(str(starts), "1") + "plane.ready(('a',))\nsys.exit(1)\n"
    async with keep(script) as kept:
        await until(lambda: len(written(starts)) >= 3)
        assert kept.leases.wanted[:4] == [("a",), (), ("a",), ()]


async def test_a_manager_that_fell_silent_is_killed(keep, tmp_path):
    starts = tmp_path / "starts"
    async with keep(note(str(starts), "1") + "plane.held()\ntime.sleep(3600)\n", stuck_seconds=0.5):
        await until(lambda: len(written(starts)) >= 2)


async def test_a_manager_that_says_rubbish_is_killed(keep, tmp_path):
    starts = tmp_path / "starts"
    script = note(str(starts), "1") + "plane._sock.sendall(b'rubbish' * 10)\ntime.sleep(3600)\n"
    async with keep(script):
        await until(lambda: len(written(starts)) >= 2)


async def test_one_that_does_not_stop_is_killed(keep, tmp_path):
    pid = tmp_path / "pid"
    script = "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + note(
        str(pid), "os.getpid()"
    )
    async with keep(script + "time.sleep(3600)\n") as kept:
        await until(lambda: written(pid))
        await kept.keeper.stop(0.2, asyncio.Event())
        await until(lambda: not Path(f"/proc/{written(pid)[0]}").exists())


def test_the_command_line_holds_no_secret():
    command = Launch(env={"TOKEN": "secret"}, arguments=["--parser-memory-mib", "1"]).command(7)
    assert "secret" not in " ".join(command)
    assert command[command.index("--fd") + 1] == "7"
