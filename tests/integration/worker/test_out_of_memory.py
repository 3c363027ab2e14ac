"""A task that takes too much memory dies alone, and says why."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from jetbridge.contracts.messages import Outcome


def oom_score(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


@pytest.fixture
async def limited(worker):
    """A worker whose tasks may take 512 MiB."""
    worker.process.kill()
    await worker.process.wait()
    worker.argv += ["--task-memory-mib", "512"]
    return await worker.start()


async def test_a_task_that_eats_memory_is_killed_alone_with_a_clear_reason(limited, specs):
    other, _ = await limited.run(specs.task("waits_for_the_test"))
    spec = specs.task("eats_memory")
    lease = await limited.gateway.offer(spec)
    await limited.until(lambda: lease in limited.gateway.reports)
    report = limited.gateway.reports[lease]
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, -9)
    assert report.reason.startswith("killed: out of memory (limit 512 MiB, used ")
    assert limited.plane.states_of(spec["ti"]["id"]) == ["failed"]
    log = (limited.probe_dir / "data" / "logs" / "probes" / "eats_memory.log").read_text()
    assert f"Task {report.reason}." in log

    limited.go_on()
    await limited.until(lambda: other in limited.gateway.reports)
    assert limited.gateway.reports[other].outcome is Outcome.SUCCEEDED


async def test_when_the_machine_runs_out_of_memory_tasks_go_before_the_worker(worker, specs):
    _, task = await worker.run(specs.task("lingers"))
    agent, fork_server = worker.process.pid, worker.fork_server().pid
    for pid in (task["pid"], *task["children"]):
        assert oom_score(pid) == oom_score(agent) + 500
    assert oom_score(fork_server) == oom_score(agent)
    assert psutil.Process(task["pid"]).is_running()
