"""What a scenario can break, and how to mend it again. Everything here is about real processes and links."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jetbridge.devstack.agents import Agent
from jetbridge.devstack.processes import ManagedProcess
from jetbridge.devstack.servers.handle import ProcessLifecycle, Server


def process_of(server: Server) -> ManagedProcess:
    """Return the process behind a server; skips where it is a container or somebody else's."""
    if not isinstance(server.lifecycle, ProcessLifecycle):
        pytest.skip(f"needs the server as a process of this machine, and it is: {server.origin}")
    return server.lifecycle.process


@contextlib.contextmanager
def frozen(process: ManagedProcess, *, alone: bool = False) -> Iterator[None]:
    """Stop a process and all below it with SIGSTOP; ``alone`` spares its children."""
    root = psutil.Process(process.pid)
    stopped = [root] if alone else [root, *root.children(recursive=True)]
    for one in stopped:
        _signal(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in reversed(stopped):
            _signal(one, signal.SIGCONT)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


@contextlib.contextmanager
def cut(agent: Agent, direction: str, why_not: str | None) -> Iterator[None]:
    """Cut an agent's link: ``requests`` never leave it, or ``answers`` never reach it."""
    if agent.namespace is None:
        pytest.skip(f"agents have no network of their own here: {why_not}")
    getattr(agent.namespace, f"cut_{direction}")()
    try:
        yield
    finally:
        agent.namespace.heal()


@contextlib.contextmanager
def slow_and_lossy(agent: Agent, why_not: str | None) -> Iterator[str]:
    """
    Make an agent's link slow and lossy; yields how, for the record.

    With ``netem`` where the kernel has it: 200 ms ± 50 ms and a tenth of the packets lost, each way. Else
    with a token bucket of 24 kB/s that drops what does not fit into a short queue: slow, and lossy
    under load.
    """
    if agent.namespace is None:
        pytest.skip(f"agents have no network of their own here: {why_not}")
    here, there = ("tc", "qdisc"), ("tc", "-n", agent.namespace.name, "qdisc")
    places = ((here, agent.namespace.link), (there, "eth0"))
    netem = ("netem", "delay", "200ms", "50ms", "loss", "10%")
    bucket = ("tbf", "rate", "192kbit", "burst", "4kb", "limit", "16kb")
    try:
        how = next((kind for kind in (netem, bucket) if all(_shape(*place, kind) for place in places)), None)
        if how is None:
            pytest.skip("this kernel has neither netem nor tbf")
        yield " ".join(how)
    finally:
        for command, device in places:
            subprocess.run([*command, "del", "dev", device, "root"], capture_output=True, check=False)


def _shape(command: tuple[str, ...], device: str, discipline: tuple[str, ...]) -> bool:
    if shutil.which("tc") is None:
        pytest.skip("no `tc` command (Debian package iproute2)")
    done = subprocess.run(
        [*command, "replace", "dev", device, "root", *discipline], capture_output=True, check=False
    )
    return done.returncode == 0


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """Mount a file system of ``size`` (as tmpfs says it) at ``path``; skips where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily: a process that is about to end may still have a file open.
        subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """Fill the disk that ``path`` is on to its last byte."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):  # ever smaller pieces, until not one byte more fits
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    try:
        yield
    finally:
        ballast.unlink()
