"""When a task takes too much memory."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from jetbridge.worker.memory import LOOK_SECONDS, MemoryWatch

MIB = 1 << 20
EATS = """
import subprocess, sys
eaten = bytearray(b"x" * ({mib} << 20))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) if {forks} else None
print(child.pid if child else 0, flush=True)
sys.stdin.read()
"""


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def task():
    """Start a task that takes so many MiB; returns it and its child, if it has one."""
    started = []

    def start(mib, *, forks=False):
        program = EATS.format(mib=mib, forks=forks)
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        child = int(process.stdout.readline())
        return process, psutil.Process(child) if child else None

    yield start
    for process in started:
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()


def test_a_task_within_its_limit_is_left_alone(task):
    process, _ = task(16)
    watch = MemoryWatch(limit_bytes=256 * MIB)
    assert not watch.look(process.pid)
    assert process.poll() is None


def test_a_task_above_its_limit_is_killed_with_all_it_started(task):
    process, child = task(128, forks=True)
    watch = MemoryWatch(limit_bytes=64 * MIB)
    assert watch.look(process.pid)
    assert process.wait(30) == -9
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert watch.killed_because.startswith("killed: out of memory (limit 64 MiB, used 1")
    assert not watch.look(process.pid)


def test_what_a_task_started_counts(task):
    process, child = task(0, forks=True)
    both = sum(
        one.memory_info().rss - one.memory_info().shared for one in (psutil.Process(process.pid), child)
    )
    alone = psutil.Process(process.pid).memory_info()
    assert MemoryWatch(limit_bytes=(both + alone.rss - alone.shared) // 2).look(process.pid)


def test_no_limit_and_no_look_too_soon(task):
    process, _ = task(128)
    assert not MemoryWatch().look(process.pid)
    clock = Clock()
    watch = MemoryWatch(limit_bytes=1 << 40, clock=clock)
    assert not watch.look(process.pid)
    watch.limit_bytes = MIB
    clock.now += LOOK_SECONDS / 2
    assert not watch.look(process.pid)
    clock.now += LOOK_SECONDS
    assert watch.look(process.pid)


def test_a_task_that_is_gone_takes_nothing():
    assert not MemoryWatch(limit_bytes=1).look(2**22 - 1)
