"""Stepping the wall clock of single processes, as a broken NTP or a hypervisor does to a machine."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jetbridge.devstack.processes import ManagedProcess

_SOURCE = Path(__file__).with_name("wallclock.c")
_READ = "import time; print(time.time())"


class WallClock:
    """The wall clock of whatever runs with :attr:`environment`; others keep the machine's."""

    def __init__(self, library: Path, offset: Path) -> None:
        self._offset = offset
        self.environment = {"LD_PRELOAD": str(library), "JETBRIDGE_CHAOS_WALLCLOCK": str(offset)}
        self.step(0)

    def step(self, seconds: int) -> None:
        """Be this far off from now on, also in processes that run already."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def read(self) -> float:
        """Return the time a new process sees."""
        done = subprocess.run(
            [sys.executable, "-c", _READ], env=self.environment, capture_output=True, text=True, check=True
        )
        return float(done.stdout)


def make_wall_clock(directory: Path) -> WallClock:
    """Build the library; skips where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("stepping a process's wall clock needs Linux and a C compiler")
    library = directory / "wallclock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
    return WallClock(library, directory / "offset")


@contextmanager
def restarted_with(process: ManagedProcess, environment: dict[str, str]) -> Iterator[None]:
    """Restart a process with more environment, and restart it without at the end."""
    before = process.command
    process.stop()
    process.command = dataclasses.replace(before, env={**before.env, **environment})
    process.start()
    try:
        yield
    finally:
        process.stop()
        process.command = before
        process.start()
