"""
Agents that are processes of this machine, found by the marks in their data directories.

A pidfd says at once, and about no other process, that the agent's own process ended. *Gone* is more than
that: its fork server may still be killing what tasks had started. So the lock that all forks of an agent hold
has to be free (see ``jetbridge.agent.mark``), and no process may be left that carries the agent's instance in
its environment. Where this sentinel cannot see that, because it is another user or in another PID namespace,
it says nothing of an end; the lease will.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from jetbridge.agent.mark import (
    INSTANCE_VARIABLE,
    MARK_FILE,
    Mark,
    all_gone,
    pid_namespace,
    read_mark,
    started_ticks,
)
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.waiting import wait_at_most
from jetbridge.contracts.sites import ROLE
from jetbridge.sentinel.site.view import Ended, SiteView, seen

SHORTEST_PAUSE_SECONDS = 0.02
"""Between looks at what is ending: killing everything takes milliseconds."""

_STOPPED_STATES = {"T": "it was stopped by a signal", "t": "a debugger holds it"}


class CannotTellError(Exception):
    """This sentinel cannot see whether everything of an agent is gone; the text says why."""


@dataclass
class ProcessWatcher:
    """
    Looks for marks below ``patterns`` and follows each process until it is gone.

    :param site: whose agents are watched; not its sentinels, which cannot speak for themselves
    """

    patterns: tuple[str, ...]
    site: str
    view: SiteView
    tasks: SideTasks
    interval_seconds: float
    _followed: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Look for agents until cancelled."""
        while True:
            found = {str(directory): mark for directory, mark in self._marks()}
            for key, mark in found.items():
                if mark.instance not in self._followed:
                    self._followed.add(mark.instance)
                    self.tasks.run(f"follow {mark.name}", self.follow(Path(key), mark))
            for key in self.view.keys() - found.keys():
                self.view.forget(key)
            await asyncio.sleep(self.interval_seconds)

    def _marks(self) -> Iterator[tuple[Path, Mark]]:
        for pattern in self.patterns:
            for path in glob.iglob(os.path.expanduser(pattern)):  # noqa: PTH111, PTH207 - patterns, not paths
                directory = Path(path)
                mark = read_mark(directory)
                if mark is not None and mark.site == self.site and mark.role != ROLE:
                    yield directory, mark

    async def follow(self, directory: Path, mark: Mark) -> None:
        """Watch one process of an agent until nothing of it is left, and say so."""
        pidfd = open_process(mark)
        if pidfd is not None:
            try:
                await self._while_it_runs(directory, mark, pidfd)
            finally:
                os.close(pidfd)
        try:
            await self._until_gone(directory, mark)
        except CannotTellError as why:
            self._see(directory, mark, healthy=False, state="ended", detail=f"not told to the plane: {why}")
            return
        self.view.ended(Ended(mark.name, mark.instance, f"its process {mark.pid} ended and nothing is left"))
        now = read_mark(directory)
        in_order = now is not None and now.instance == mark.instance and now.stopped
        detail = "it stopped in order" if in_order else f"its process {mark.pid} died"
        self._see(directory, mark, healthy=in_order, state="stopped" if in_order else "ended", detail=detail)

    async def _while_it_runs(self, directory: Path, mark: Mark, pidfd: int) -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(pidfd, ended.set)
        try:
            while not ended.is_set():
                hung = _STOPPED_STATES.get(state_letter(mark.pid))
                self._see(
                    directory,
                    mark,
                    healthy=hung is None,
                    state="running" if hung is None else "hung",
                    detail=hung or "",
                )
                await wait_at_most(ended, self.interval_seconds)
        finally:
            loop.remove_reader(pidfd)

    async def _until_gone(self, directory: Path, mark: Mark) -> None:
        """Wait until nothing of the agent is left; raises :class:`CannotTellError`."""
        require_sight(directory, mark)
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            held = all_gone(directory, mark.instance)
            if held is None:
                raise CannotTellError("the lock of its processes is not there any more")
            left = [] if not held else marked_processes(mark.instance)
            if held and not left:
                return
            detail = f"processes of it still run: {left}" if left else "processes of it still run"
            self._see(directory, mark, healthy=False, state="ending", detail=detail)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.interval_seconds)

    def _see(self, directory: Path, mark: Mark, *, healthy: bool, state: str, detail: str) -> None:
        now = read_mark(directory)
        if now is not None and now.instance != mark.instance:
            return  # another process of the agent is there by now, and is what there is to see
        agent = seen(
            mark.name, healthy=healthy, state=state, detail=detail, instance=mark.instance, role=mark.role
        )
        self.view.see(str(directory), agent)


def open_process(mark: Mark) -> int | None:
    """Return a descriptor for exactly the process of the mark; None when it is not there any more."""
    if mark.pid_namespace != pid_namespace():
        return None
    try:
        pidfd = os.pidfd_open(mark.pid)
    except (ProcessLookupError, ValueError):
        return None
    # The descriptor is of whoever has the number now; a process that started at another time is another one.
    if started_ticks(mark.pid) != mark.started_ticks:
        os.close(pidfd)
        return None
    return pidfd


def require_sight(directory: Path, mark: Mark) -> None:
    """Raise :class:`CannotTellError` unless all processes of the agent could be seen from here."""
    if mark.pid_namespace != pid_namespace():
        raise CannotTellError("it runs in another PID namespace than the sentinel")
    try:
        owner = (directory / MARK_FILE).stat().st_uid
    except OSError as error:
        raise CannotTellError("its mark is not there any more") from error
    if os.geteuid() not in (0, owner):
        raise CannotTellError("it runs as another user; run the sentinel as that user or as root")


def marked_processes(instance: str) -> list[int]:
    """Return the processes whose environment says that an agent's task started them."""
    return [process.pid for process in psutil.process_iter() if _is_marked(process, instance)]


def _is_marked(process: psutil.Process, instance: str) -> bool:
    try:
        marked: bool = process.environ().get(INSTANCE_VARIABLE) == instance
        return marked and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        # Gone meanwhile, or not to be read: other users' processes, and forks of agents, which hold the lock.
        return False


def state_letter(pid: int) -> str:
    """Return the kernel's word for what a process does, for example ``S`` or ``T``; empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]
