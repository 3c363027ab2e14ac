"""``jetbridge worker`` as a process of its own, over HTTPS, with what it starts killed in every way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import psutil

from jetbridge.agent.errors import ExitCode
from jetbridge.agent.mark import all_gone, read_mark
from jetbridge.contracts.api import Orders
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.messages import Outcome
from jetbridge.worker.worker import DISOWNED


async def test_a_task_from_its_offer_to_its_report_and_a_drain(worker, specs):
    spec = specs.task("waits_for_the_test")
    lease, task = await worker.run(spec)
    worker.process.terminate()
    await worker.until(lambda: worker.gateway.called("heartbeat")[-1].body.draining)
    assert psutil.Process(task["pid"]).is_running()
    worker.go_on()
    assert await worker.exit_code() == ExitCode.OK
    assert worker.gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert worker.plane.states_of(spec["ti"]["id"]) == ["success"]
    registration = worker.gateway.called("register")[0].body
    assert registration.queues == ("default",)
    secrets = [str(worker.gateway.token), worker.gateway.credential, f"token-of-{lease}"]
    assert not any(secret in worker.log for secret in secrets)


async def test_kill_9_of_the_agent_kills_all_below_it_and_the_next_agent_says_so(worker, specs):
    lease, task = await worker.run(specs.task("lingers"))
    tree = worker.tree()
    assert {task["pid"], task["ppid"], *task["children"]} < {process.pid for process in tree}
    worker.process.kill()
    await worker.gone(tree)
    await worker.process.wait()

    await worker.start()
    await worker.until(lambda: lease in worker.gateway.reports)
    assert worker.gateway.reports[lease].outcome is Outcome.ABANDONED
    assert worker.gateway.reports[lease].reason == DISOWNED


async def test_kill_9_of_the_fork_server_kills_all_below_it_and_the_worker_goes_on(worker, specs):
    lease, task = await worker.run(specs.task("lingers"))
    fork_server = worker.fork_server()
    below = fork_server.children(recursive=True)
    assert {task["pid"], task["ppid"], *task["children"]} <= {process.pid for process in below}
    fork_server.kill()
    await worker.gone(below)
    await worker.until(lambda: lease in worker.gateway.reports)
    assert worker.gateway.reports[lease].outcome is not Outcome.SUCCEEDED
    assert "fork server was killed by SIGKILL" in worker.gateway.reports[lease].reason

    next_lease = await worker.gateway.offer(specs.task("succeeds"))
    await worker.until(lambda: next_lease in worker.gateway.reports)
    assert worker.gateway.reports[next_lease].outcome is Outcome.SUCCEEDED


async def test_a_second_signal_hands_tasks_over_and_leaves_nothing(worker, specs):
    spec = specs.task("lingers")
    lease, _ = await worker.run(spec)
    tree = worker.tree()
    worker.process.terminate()
    await worker.until(lambda: worker.gateway.called("heartbeat")[-1].body.draining)
    worker.process.terminate()
    assert await worker.exit_code() == ExitCode.OK
    await worker.gone(tree)
    assert worker.gateway.reports[lease].outcome is Outcome.ABANDONED
    assert worker.gateway.reports[lease].reason == "the worker was told to stop at once"
    assert worker.plane.states_of(spec["ti"]["id"]) == []  # Airflow heard of no end, so it costs no retry
    assert worker.gateway.called("goodbye")


async def test_a_drain_by_order_hands_over_at_its_deadline_and_exits_with_0(worker, specs):
    spec = specs.task("lingers")
    lease, _ = await worker.run(spec)
    tree = worker.tree()
    worker.gateway.orders = Orders(cordoned=True, drain=True, hand_over_in_seconds=3600)
    await worker.until(lambda: worker.gateway.called("heartbeat")[-1].body.draining)
    assert all(map(lives, tree))
    worker.gateway.orders = Orders(cordoned=True, drain=True, hand_over_in_seconds=0)
    assert await worker.exit_code() == ExitCode.OK
    await worker.gone(tree)
    assert worker.gateway.reports[lease].outcome is Outcome.ABANDONED
    assert worker.plane.states_of(spec["ti"]["id"]) == []


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_the_mark_says_when_all_of_a_worker_is_gone(worker, specs):
    _, task = await worker.run(specs.task("lingers"))
    data_dir = worker.probe_dir / "data"
    mark = read_mark(data_dir)
    assert (mark.name, mark.role, mark.pid) == ("a1", "worker", worker.process.pid)
    assert all_gone(data_dir, mark.instance) is False
    tree = worker.tree()
    worker.process.kill()
    await worker.process.wait()
    # Whoever holds the lock still lives, so an unlocked lock says that all are gone.
    async with asyncio.timeout(60):
        while not all_gone(data_dir, mark.instance):
            await asyncio.sleep(0.01)
    left = [process.pid for process in tree if lives(process)]
    assert set(left) <= {*task["children"]}  # what a task started by exec does not hold it
    await worker.gone(tree)
    assert not read_mark(data_dir).stopped


async def test_ctrl_c_in_a_terminal_drains_as_well(worker, specs):
    lease, _ = await worker.run(specs.task("waits_for_the_test"))
    os.killpg(worker.process.pid, signal.SIGINT)
    await worker.until(lambda: worker.gateway.called("heartbeat")[-1].body.draining)
    worker.go_on()
    assert await worker.exit_code() == ExitCode.OK
    assert worker.gateway.reports[lease].outcome is Outcome.SUCCEEDED


async def test_a_gateway_restart_in_the_middle_of_a_run_costs_no_task(worker, specs):
    spec = specs.task("waits_for_the_test")
    lease, _ = await worker.run(spec)
    await worker.plane.stop()
    worker.go_on()
    await worker.until(lambda: "gateway connection lost" in worker.log)
    worker.gateway.credential = ""  # the new gateway may have another signing key, too
    await worker.plane.start()
    await worker.until(lambda: lease in worker.gateway.reports)
    assert worker.gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert worker.plane.states_of(spec["ti"]["id"]) == ["success"]
    await worker.until(lambda: "gateway connection restored" in worker.log)


async def test_a_revoked_token_is_a_clear_sentence_and_exit_3(worker):
    worker.gateway.token = AgentToken.generate()
    worker.gateway.credential = "revoked"
    assert await worker.exit_code() == ExitCode.REFUSED
    assert "it may have expired or been revoked" in worker.log


async def test_one_data_directory_is_for_one_agent(worker):
    await worker.until(lambda: worker.gateway.called("heartbeat"))
    first = worker.process
    await worker.start()
    assert await worker.exit_code() == ExitCode.USAGE
    assert "another agent uses the data directory" in worker.log
    worker.process = first


async def test_a_process_of_the_same_user_cannot_look_into_the_agent(worker):
    await worker.until(lambda: worker.gateway.called("heartbeat"))
    worker.process.kill()
    await worker.process.wait()
    worker.argv = [*UNPRIVILEGED, *worker.argv]
    worker.gateway.calls.clear()
    await worker.start()
    await worker.until(lambda: any(call.body.free_slots for call in worker.gateway.called("poll")))
    open_to_all = await asyncio.create_subprocess_exec(*UNPRIVILEGED, "sleep", "60")
    try:
        async with asyncio.timeout(60):
            while not await can_read_environ(open_to_all.pid):  # else this test could not fail
                await asyncio.sleep(0.01)  # setpriv has not replaced itself by sleep yet
        assert not await can_read_environ(worker.process.pid)
        assert not await can_read_environ(worker.fork_server().pid)
    finally:
        open_to_all.kill()
        await open_to_all.wait()


# Root may look into any process, unless it has given its capabilities away.
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--"] if os.geteuid() == 0 else []


async def can_read_environ(pid):
    reading = await asyncio.create_subprocess_exec(
        *UNPRIVILEGED, "cat", f"/proc/{pid}/environ", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return await reading.wait() == 0
