"""The fence of the kernel, around processes that do nothing: no fork server, no Airflow."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from jetbridge.agent.lease_clock import lease_time
from jetbridge.worker.frames import Hold
from jetbridge.worker.kernel_fence import HELD_SIGNAL, HeldPage, KernelFence

pytestmark = pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux has these timers")

SHORT = 0.3


@pytest.fixture
def page():
    before = signal.getsignal(HELD_SIGNAL)
    page = HeldPage()
    yield page
    page.close()
    signal.signal(HELD_SIGNAL, before)


@pytest.fixture
def supervised(page):
    """Return a function that forks a process behind the fence, which then waits in one system call."""
    forked = []

    def supervised(good_seconds=0.0, *, has_task=False):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            fence = KernelFence(page, good_seconds)
            fence.arm()
            if has_task and os.fork() == 0:
                fence.leave_to_supervisor()
                os.write(writer, f"{os.getpid()}\n".encode())
                time.sleep(3600)
            os.close(writer)
            time.sleep(3600)
        forked.append(pid)
        with os.fdopen(reader) as file:
            os.close(writer)
            return pid, int(file.readline() or 0)

    yield supervised
    for pid in forked:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def ends_by(pid, seconds=10.0):
    """Return which signal ended a process, without reaping it; None when it lives on."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if end is not None:
            return end.si_status
        time.sleep(0.01)
    return None


def good_for(seconds):
    now = lease_time()
    return Hold(until=now + seconds, heard_at=now)


def test_a_process_is_killed_when_its_lease_is_over(page, supervised):
    page.write(good_for(SHORT), [])
    pid, _ = supervised()
    assert ends_by(pid) == signal.SIGKILL
    assert lease_time() >= page.read().until


def test_also_while_it_is_stopped(page, supervised):
    page.write(good_for(SHORT), [])
    pid, _ = supervised()
    os.kill(pid, signal.SIGSTOP)
    assert ends_by(pid) == signal.SIGKILL


def test_a_lease_that_is_over_already_means_at_once(page, supervised):
    page.write(Hold(until=0.0, heard_at=0.0), [])
    pid, _ = supervised()
    assert ends_by(pid) == signal.SIGKILL


def test_a_prolonged_lease_goes_on_and_ends_later(page, supervised):
    page.write(good_for(5 * SHORT), [])
    pid, _ = supervised()
    page.write(good_for(6 * SHORT), [pid])
    assert ends_by(pid) == signal.SIGKILL
    assert lease_time() >= page.read().until


def test_a_lease_may_be_good_for_longer_than_others(page, supervised):
    page.write(good_for(SHORT), [])
    pid, _ = supervised(good_seconds=3600.0)
    assert ends_by(pid, 2 * SHORT) is None


def test_one_that_has_no_fence_yet_is_not_hurt_by_the_signal(page):
    page.write(good_for(SHORT), [os.getpid()])


def test_a_task_has_neither_timer_nor_handler(page, supervised):
    """Its own death is that of its supervisor: ``PR_SET_PDEATHSIG``, which is not set here."""
    page.write(good_for(SHORT), [])
    supervisor, task = supervised(has_task=True)
    try:
        assert ends_by(supervisor) == signal.SIGKILL
        os.kill(task, 0)  # it lives
    finally:
        os.kill(task, HELD_SIGNAL)  # and dies of a signal that its supervisor handles
    until = time.monotonic() + 10
    while psutil.pid_exists(task) and psutil.Process(task).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "the task handles the signal"
        time.sleep(0.01)


def test_whoever_looks_while_it_is_written_never_sees_an_earlier_time(page):
    """For a moment of zeros in between, a supervisor would be killed in the middle of a good lease."""
    writer = os.fork()
    if writer == 0:
        moment = 1.0
        while True:  # until it is killed
            moment += 1e-3
            page.write(Hold(until=moment, heard_at=moment), [])
    looks = changes = 0
    last = 0.0
    try:
        while looks < 100_000 or changes < 100:  # on a busy machine the two may run in turns for long
            seen = page.read().until
            assert seen >= last
            looks, changes, last = looks + 1, changes + (seen > last), seen
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
