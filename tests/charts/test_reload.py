"""The dev images' entry point, run for real with stand-ins for our services."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chartkit.rendering import ROOT

RELOAD = ROOT / "k8s" / "images" / "dev" / "reload.py"
PATIENCE_SECONDS = 60
RESTART_SECONDS = 3.0
"""From a saved file to the new process. The best of three counts: the machine may be busy."""


class Dev:
    """A container of a dev image: sources, a log of what the service did, and the entry point."""

    def __init__(self, directory: Path) -> None:
        self.sources, self.log, self.programs = directory / "src", directory / "log", directory / "bin"
        self.sources.mkdir()
        self.programs.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    def run(self, service: str) -> subprocess.Popen[bytes]:
        """Start the entry point with a shell script for `jetbridge`, which finds its log as $LOG."""
        stand_in = self.programs / "jetbridge"
        stand_in.write_text(f"#!/bin/sh\necho started $* >> $LOG\n{service}\n")
        stand_in.chmod(0o755)
        env = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "LOG": str(self.log)}
        words = [sys.executable, str(RELOAD), "jetbridge", "gateway", "--port", "1"]
        self.process = subprocess.Popen(words, env={**env, "RELOAD_SOURCES": str(self.sources)})
        return self.process

    def change(self) -> None:
        """Save a file."""
        (self.sources / "module.py").write_text(f"x = {next(self._numbers)}\n")

    def change_until(self, lines: int) -> None:
        """Save again and again: the watcher may begin to look only after the first change."""

        def changed() -> bool:
            self.change()
            return len(self.lines()) >= lines

        _await(changed, every_seconds=2)

    def lines(self) -> list[str]:
        """Return what the service wrote."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """Return a container that is gone after the test."""
    container = Dev(tmp_path)
    yield container
    if container.process and container.process.poll() is None:
        container.process.send_signal(signal.SIGTERM)
        container.process.wait(timeout=PATIENCE_SECONDS)


def test_a_changed_file_starts_the_service_again(dev: Dev) -> None:
    dev.run("exec sleep 600")
    _await(lambda: dev.lines() == ["started gateway --port 1"])
    dev.change_until(lines=2)
    assert min(_restart_seconds(dev) for _ in range(3)) < RESTART_SECONDS


def test_a_service_that_has_drained_ends_the_container(dev: Dev) -> None:
    """Otherwise a drained agent would not come back before its probe had failed for a minute."""
    assert dev.run("exit 0").wait(timeout=PATIENCE_SECONDS) == 0
    assert dev.lines() == ["started gateway --port 1"]


def test_a_service_that_failed_is_started_again_by_the_change_that_repairs_it(dev: Dev) -> None:
    entry_point = dev.run("exit 1")
    dev.change_until(lines=2)
    assert entry_point.poll() is None


def test_a_roll_out_is_a_drain_here_too(dev: Dev) -> None:
    """SIGTERM reaches the service, which takes its time; its code is the container's."""
    drains = "sleep 3; kill $child; echo drained >> $LOG; exit 5"
    entry_point = dev.run(f"sleep 600 & child=$!\ntrap '{drains}' TERM\necho ready >> $LOG\nwait")
    _await(lambda: "ready" in dev.lines())
    entry_point.send_signal(signal.SIGTERM)
    assert entry_point.wait(timeout=PATIENCE_SECONDS) == 5
    assert dev.lines()[-1] == "drained"


def test_what_is_meant_to_end_ends() -> None:
    words = [sys.executable, str(RELOAD), "sh", "-c", "exit 7"]
    assert subprocess.run(words, check=False, timeout=PATIENCE_SECONDS).returncode == 7


def _restart_seconds(dev: Dev) -> float:
    """Return how long after a change the service was started again."""
    before, begun = len(dev.lines()), time.monotonic()
    dev.change()
    _await(lambda: len(dev.lines()) > before)
    seconds = time.monotonic() - begun
    time.sleep(1)  # whatever else the watcher makes of this change is over
    return seconds


def _await(condition: Callable[[], bool], every_seconds: float = 0.05) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(every_seconds)
