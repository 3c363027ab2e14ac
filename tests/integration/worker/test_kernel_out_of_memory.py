"""A worker's container has no more memory and the kernel kills: one task dies, alone, and says why."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import pytest

from jetbridge.contracts.messages import Outcome
from jetbridge.worker.execute import KILLED

LIMIT_BYTES = 768 << 20
"""For what the worker and its tasks take from now on: one task eats it in seconds."""


def memory_group():
    """Return where a control group that limits memory can be made, and the names of its limits."""
    old = Path("/sys/fs/cgroup/memory")
    if (old / "memory.limit_in_bytes").exists():
        return old, ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    root = Path("/sys/fs/cgroup")
    if "memory" in (root / "cgroup.subtree_control").read_text().split():
        return root, ("memory.max", "memory.swap.max")
    pytest.skip("no control group that limits memory can be made here")


@pytest.fixture
def contained():
    """Return a function that limits the memory of processes and of all they start."""
    with contextlib.ExitStack() as made:
        yield lambda processes: made.enter_context(limited(processes))


@contextlib.contextmanager
def limited(processes):
    root, (of_memory, of_swap) = memory_group()
    group = root / f"jetbridge-{uuid.uuid4()}"
    try:
        group.mkdir()
        (group / of_memory).write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no control group that limits memory can be made here: {error}")
    with contextlib.suppress(OSError):  # a kernel that does not count swap
        (group / of_swap).write_text("0" if of_swap == "memory.swap.max" else str(LIMIT_BYTES))
    try:
        for process in processes:
            (group / "cgroup.procs").write_text(str(process.pid))
        yield lambda: kills_of(group)
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        group.rmdir()


def kills_of(group):
    """Return how many processes of the group the kernel has killed for their memory."""
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(FileNotFoundError):
            counts = dict(line.split() for line in (group / name).read_text().splitlines())
            return int(counts["oom_kill"])
    raise AssertionError("the group does not count")


async def test_the_kernel_kills_the_task_that_takes_the_memory_and_nothing_else(worker, specs, contained):
    other, _ = await worker.run(specs.task("waits_for_the_test"))
    before = worker.tree()
    kills = contained(before)
    spec = specs.task("eats_memory")
    lease = await worker.gateway.offer(spec)
    await worker.until(lambda: lease in worker.gateway.reports)
    assert kills() == 1
    report = worker.gateway.reports[lease]
    assert (report.exit_code, report.reason) == (-9, KILLED)
    assert worker.plane.states_of(spec["ti"]["id"]) == ["failed"]
    log = (worker.probe_dir / "data" / "logs" / "probes" / "eats_memory.log").read_text()
    assert "Likely out of memory error (OOM)" in log  # Airflow's own words, where its UI shows them
    assert all(process.is_running() for process in before)

    worker.go_on()
    await worker.until(lambda: other in worker.gateway.reports)
    assert worker.gateway.reports[other].outcome is Outcome.SUCCEEDED
    assert worker.gateway.reports[other].exit_code == os.EX_OK
