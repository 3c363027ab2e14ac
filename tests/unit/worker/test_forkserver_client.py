"""The keeper against stand-ins for the fork server: small programs that speak its frames, or die."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import msgspec
import pytest
from structlog.testing import capture_logs

from jetbridge.agent.lease_clock import lease_time
from jetbridge.contracts.messages import Outcome
from jetbridge.worker import forkserver_client
from jetbridge.worker.forkserver_client import ForkServerError, ForkServerKeeper, Launch
from jetbridge.worker.frames import Hold, Order

PREAMBLE = """
import os, socket, sys
from jetbridge.contracts.messages import Outcome
from jetbridge.worker import frames
control = socket.socket(fileno=int(sys.argv[1]))
def tell(event): control.send(frames.encode(event))
"""
READY = "tell(frames.Ready(import_seconds=0.1, modules=1, threads={threads}))\n"
SERVES = """
while True:
    command, order = frames.receive_command(control)
    if isinstance(command, frames.Start):
        read = frames.read_order(order)
        tell(frames.Started(lease=read.lease, pid=1))
        tell(frames.Exited(lease=read.lease, outcome=Outcome.SUCCEEDED, exit_code=7))
"""
DIES_AT_WORK = "frames.receive_command(control)\nos.kill(os.getpid(), 9)\n"


@dataclass(frozen=True)
class StandIn(Launch):
    program: str = ""

    def command(self, control_fd):
        return [sys.executable, "-c", PREAMBLE + self.program, str(control_fd)]


def order(number=1):
    lease = f"0190c3f4-0000-7000-8000-{number:012}.1"
    return Order(lease=lease, spec=msgspec.Raw(b"{}"), token="t")


class Kept:
    """A keeper at work, and what it called."""

    def __init__(self, program):
        self.buried = 0
        self.ready_seen = []
        self.keeper = ForkServerKeeper(StandIn({}, "", program=program), bury=self._bury)
        self.keeping = asyncio.create_task(self.keeper.keep(self._changed))

    async def _bury(self):
        self.buried += 1
        return True

    def _changed(self):
        self.ready_seen.append(self.keeper.ready)

    async def run(self, number=1):
        await asyncio.wait_for(self.keeper.wait_ready(), 30)
        return await asyncio.wait_for(
            self.keeper.run(order(number), Hold(until=lease_time() + 60, heard_at=lease_time())), 30
        )


@pytest.fixture
async def keep(monkeypatch):
    monkeypatch.setattr(forkserver_client, "PAUSES_SECONDS", (0.0, 0.0, 0.0, 0.0))
    started = []

    def start(program):
        started.append(Kept(program))
        return started[-1]

    yield start
    for kept in started:
        kept.keeping.cancel()
        await asyncio.wait({kept.keeping})
        await kept.keeper.close()


async def test_orders_are_run_and_their_ends_told_apart(keep):
    kept = keep(READY.format(threads=1) + SERVES)
    first, second = await asyncio.gather(kept.run(1), kept.run(2))
    assert (first.lease, second.lease) == (order(1).lease, order(2).lease)
    assert first.exit_code == 7
    assert kept.ready_seen == [True]


async def test_a_death_ends_what_ran_and_a_new_one_is_started(keep):
    kept = keep(READY.format(threads=1) + DIES_AT_WORK)
    ended = await kept.run()
    assert ended.outcome is not Outcome.SUCCEEDED
    assert "was killed by SIGKILL" in ended.reason
    assert kept.buried == 1, "before the end is told, nothing of the task runs any more"
    await asyncio.wait_for(kept.keeper.wait_ready(), 30)
    assert kept.ready_seen == [True, False, True]


@pytest.mark.parametrize("program", ["sys.exit(3)", "control.close(); sys.exit(3)"])
async def test_one_that_keeps_dying_is_given_up(keep, program):
    kept = keep(program)
    with capture_logs() as logs, pytest.raises(ForkServerError, match="died 5 times"):
        await asyncio.wait_for(asyncio.shield(kept.keeping), 60)
    assert [entry["how"] for entry in logs if "how" in entry] == ["ended with status 3"] * 5
    assert not kept.keeper.ready


async def test_one_that_is_never_ready_is_killed(keep, monkeypatch):
    monkeypatch.setattr(forkserver_client, "READY_SECONDS", 0.2)
    monkeypatch.setattr(forkserver_client, "CLOSE_SECONDS", 0.1)
    kept = keep("import time\ntime.sleep(3600)")
    with pytest.raises(ForkServerError):
        await asyncio.wait_for(asyncio.shield(kept.keeping), 60)


async def test_one_that_is_not_ready_yet_can_be_closed_at_once(keep, monkeypatch):
    monkeypatch.setattr(forkserver_client, "CLOSE_SECONDS", 3600.0)
    kept = keep("import time\ntime.sleep(3600)")
    while kept.keeper._current is None:
        await asyncio.sleep(0.001)
    await asyncio.wait_for(kept.keeper.close(), 30)


async def test_more_than_one_thread_is_warned_about(keep):
    with capture_logs() as logs:
        kept = keep(READY.format(threads=2) + SERVES)
        await kept.run()
    assert any(entry["log_level"] == "warning" and entry.get("threads") == 2 for entry in logs)


async def test_a_frame_that_cannot_be_read_is_a_death(keep):
    kept = keep(READY.format(threads=1) + "control.send(b'nonsense')\nframes.receive_command(control)\n")
    await asyncio.wait_for(kept.keeper.wait_ready(), 30)
    while kept.buried == 0:
        await asyncio.sleep(0.001)


def test_the_command_line_holds_what_it_needs_and_no_secret():
    launch = Launch({"A": "b"}, "https://gw/execution/", preload=("pandas", "numpy"))
    command = launch.command(9)
    assert command[1:4] == ["-P", "-m", "jetbridge.worker.forkserver"]
    assert command[-3:] == ["--preload", "pandas", "numpy"]
