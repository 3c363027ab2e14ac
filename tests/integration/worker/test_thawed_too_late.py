"""
A whole worker is frozen, and thawed when its lease is over: what runs first then is not its task.

Frozen in the ways there are: stopped by a signal, or by the kernel's freezers for containers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
import uuid
from pathlib import Path

import psutil
import pytest

from jetbridge.agent.lease_clock import lease_time
from jetbridge.contracts.messages import Outcome
from jetbridge.worker.endings import FENCED

LEASE_SECONDS = 2.5
THAWS = int(os.environ.get("THAWS") or 1)
"""How often each way is tried; ``THAWS=20 pytest -s`` prints how long each task ran on."""


@contextlib.contextmanager
def stopped(processes):
    """Frozen one by one with SIGSTOP; thawed in the worst order, the task before who watches it."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)

    def thaw():
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)

    yield thaw


@contextlib.contextmanager
def frozen_group(processes, root, switch, on, off):
    """Frozen, and thawed, all at once, in a control group of their own."""
    group = root / f"jetbridge-{uuid.uuid4()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        for process in processes:
            (group / "cgroup.procs").write_text(str(process.pid))
        (group / switch).write_text(on)
        yield lambda: (group / switch).write_text(off)
    finally:
        (group / switch).write_text(off)
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (root / "cgroup.procs").write_text(pid)
        group.rmdir()


def freezer_of_containers(processes):
    """Return the one of cgroup v2, which lets a frozen process be killed."""
    roots = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
    root = next((root for root in roots if (root / "cgroup.controllers").exists()), None)
    if root is None:
        pytest.skip("cgroup v2 is not mounted here")
    return frozen_group(processes, root, "cgroup.freeze", "1", "0")


def freezer_of_old(processes):
    """Return the one of cgroup v1, as a suspended machine: what is killed meanwhile dies on waking."""
    root = Path("/sys/fs/cgroup/freezer")
    if not root.is_dir():
        pytest.skip("the freezer of cgroup v1 is not mounted here")
    return frozen_group(processes, root, "freezer.state", "FROZEN", "THAWED")


@pytest.fixture
async def impatient(worker):
    """A worker whose lease is over soon. It has not registered yet: nothing has run in this loop since."""
    worker.gateway.lease_seconds = LEASE_SECONDS
    return worker


def last_moment(worker, who):
    """Return when this process has run last; 0 when it never did."""
    (moment,) = struct.unpack("d", (worker.probe_dir / who).read_bytes())
    return moment


async def thawed_late(worker, spec, freeze):
    """Freeze a worker for longer than its lease; return whether its task died frozen, and what ran on."""
    lease, facts = await worker.run(spec)
    await worker.until(lambda: last_moment(worker, "task") and last_moment(worker, "child"))
    family = worker.tree()
    with freeze(family) as thaw:
        over = lease_time() + LEASE_SECONDS
        await worker.until(lambda: lease_time() > over)
        died_frozen = not alive(facts["pid"])
        thawed_at = time.monotonic()
        thaw()
        await worker.until(lambda: lease in worker.gateway.reports)
        await worker.gone([process for process in family if process.pid in (facts["pid"], facts["child"])])
    report = worker.gateway.reports[lease]
    assert (report.outcome, report.reason) == (Outcome.ABANDONED, FENCED)
    assert worker.plane.states_of(spec["ti"]["id"]) == []
    ran_on = {who: max(0.0, last_moment(worker, who) - thawed_at) for who in ("task", "child")}
    print(freeze.__name__, {who: f"{1000 * seconds:.2f} ms" for who, seconds in ran_on.items()})  # noqa: T201
    return died_frozen, ran_on


def alive(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("freeze", [stopped, freezer_of_containers])
async def test_a_task_dies_while_it_is_frozen(impatient, specs, freeze):
    for _ in range(THAWS):
        died_frozen, ran_on = await thawed_late(impatient, specs.task("beats"), freeze)
        assert died_frozen
        assert ran_on["task"] == 0.0


async def test_a_task_that_cannot_die_frozen_dies_on_waking(impatient, specs):
    """As long as its supervisor takes to die: milliseconds, where it was those until the fork server woke."""
    for _ in range(THAWS):
        _, ran_on = await thawed_late(impatient, specs.task("beats"), freezer_of_old)
        assert ran_on["task"] < 1.0
