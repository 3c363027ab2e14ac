"""
The process that cleans up when the supervisor was killed (``kill -9`` runs no ``finally``).

Started with a run's mark and a pipe whose other end only the supervisor holds. End of file on the
pipe means the supervisor is gone, whatever the way. Then every process that carries the mark in its
environment is killed and the network namespaces the supervisor named on the pipe are deleted.

The environment mark finds what process groups cannot: grandchildren that made a session of their
own. PR_SET_PDEATHSIG, set on every direct child, is the other half: it needs nobody to be alive.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

MARK = "JETBRIDGE_DEVSTACK_RUN"
CLEAN_EXIT = "exit"
"""The word on the pipe by which the supervisor says that it has cleaned up itself."""


def marked_processes(mark: str) -> list[psutil.Process]:
    """Return the living processes started by this run, apart from the calling one and its guard."""
    return [process for process in psutil.process_iter() if _carries(process, mark)]


def _carries(process: psutil.Process, mark: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        marked: bool = process.environ().get(MARK) == mark
        return marked and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or another user's and so not ours


def kill_marked(mark: str) -> list[str]:
    """Kill every marked process, again until none is left; returns what was found, for a log line."""
    found: list[str] = []
    while processes := marked_processes(mark):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                found.append(f"{process.pid} {process.name()}")
                process.kill()
        psutil.wait_procs(processes, timeout=5)
    return found


def delete_namespace(name: str) -> None:
    """Delete a network namespace; its end of a veth pair, and so the pair, goes with it."""
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)  # noqa: S603, S607


def main() -> None:
    """Read lines until end of file: ``netns NAME`` to remember, ``exit`` when there is nothing to do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it must outlive a Ctrl-C that the supervisor handles
    mark, leftover_directory = sys.argv[1], Path(sys.argv[2])
    namespaces: list[str] = []
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == CLEAN_EXIT:
            return
        if word == "netns":
            namespaces.append(name)
    killed = kill_marked(mark)
    for name in namespaces:
        delete_namespace(name)
    with contextlib.suppress(OSError), (leftover_directory / "guard.log").open("a") as log:
        log.write(f"the supervisor died; killed {killed}, deleted namespaces {namespaces}\n")


if __name__ == "__main__":
    main()
