"""The executor on a real NATS server: away, frozen, killed, and with a second executor beside it."""

import asyncio
import os
import shutil
import signal
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import CallbackState, TaskInstanceState

from jetbridge.bus.topology import MAX_WORK_MESSAGE_BYTES
from jetbridge.contracts.envelope import open_envelope, read_body
from jetbridge.contracts.messages import Outcome, WorkloadSubmitted
from jetbridge.devstack.servers.handle import ProcessLifecycle
from jetbridge.scheduler.testing import make_callback, make_task
from jetbridge.scheduler.translate import MAX_SPEC_BYTES, new_workload

KILLED_SCHEDULER = Path(__file__).with_name("killed_scheduler.py")


def queue(executor, *workloads):
    for workload in workloads:
        executor.queue_workload(workload, session=None)


def submitted(messages):
    return [read_body(open_envelope(message.data), WorkloadSubmitted) for message in messages]


async def gone(executor, plane, workload_id):
    async with asyncio.timeout(30):
        while await plane.store.get(workload_id):
            executor.heartbeat()
            executor.get_event_buffer()


async def test_a_task_from_the_queue_to_its_end(executor, plane, until):
    task = make_task()
    queue(executor, task)
    await until(executor, lambda: task.key in executor.running)
    (lease,) = await plane.lease()
    await until(executor, lambda: executor.event_buffer)
    assert executor.get_event_buffer() == {task.key: (TaskInstanceState.RUNNING, "worker-1")}
    await plane.finish(lease)
    await until(executor, lambda: not executor.running)
    assert executor.get_event_buffer()[task.key][0] == TaskInstanceState.SUCCESS
    await gone(executor, plane, str(task.ti.id))
    assert await plane.waiting() == 0


async def test_a_callback_from_the_queue_to_its_end(executor, plane, until):
    callback = make_callback()
    queue(executor, callback)
    await until(executor, lambda: callback.key in executor.running)
    (lease,) = await plane.lease()
    await plane.finish(lease, outcome=Outcome.FAILED, reason="exit code 1")
    await until(executor, lambda: not executor.running)
    assert executor.get_event_buffer()[callback.key][0] == CallbackState.FAILED


async def test_urgent_bands_overtake_and_within_a_band_heavy_tasks_go_first(make_executor, plane, until):
    executor = make_executor(parallelism=30)
    weights = [3, 1, 200, 20, 5, 2, 150, 4, 10]
    queue(executor, *[make_task(f"w{weight}", weight) for weight in weights])
    await until(executor, lambda: len(executor.running) == len(weights))
    order = [body.coordinates.task_id for body in submitted(await plane.pull(limit=20))]
    assert order == ["w200", "w150", "w20", "w10", "w5", "w4", "w3", "w2", "w1"]


async def test_each_queue_has_its_lane(executor, plane, until):
    queue(executor, make_task("a", queue="gpu"), make_task("b", queue="Not a subject. *"))
    await until(executor, lambda: len(executor.running) == 2)
    assert [body.queue for body in submitted(await plane.pull("gpu"))] == ["gpu"]


async def test_the_largest_workload_that_is_not_refused_is_taken(executor, plane, until):
    empty = len(new_workload(make_callback(text="")).spec)
    callback = make_callback(text="x" * (MAX_SPEC_BYTES - empty))
    task = make_task("t" * 250, queue="q" * 250, dag_id="\N{SNOWMAN}" * 250, run_id="r" * 250)
    queue(executor, callback, task)
    await until(executor, lambda: {callback.key, task.key} <= executor.running)
    (message,) = await plane.pull()
    assert MAX_SPEC_BYTES < len(message.data) < MAX_WORK_MESSAGE_BYTES


async def test_revoked_work_is_taken_from_the_agent_that_has_it(executor, plane, until):
    running, waiting = make_task("running"), make_task("waiting")
    queue(executor, running)
    await until(executor, lambda: executor.running)
    await plane.lease()
    queue(executor, waiting)
    await until(executor, lambda: len(executor.running) == 2 and executor.event_buffer)
    assert executor.get_event_buffer() == {running.key: (TaskInstanceState.RUNNING, "worker-1")}
    for task in (running, waiting):
        executor.revoke_task(ti=task.ti)
        await gone(executor, plane, str(task.ti.id))
    assert (executor.running, executor.event_buffer) == (set(), {})
    # A message that is left is stale against the record, and the gateway drops it.
    assert await plane.waiting() == 1


async def test_revoked_and_queued_again_at_once_is_on_the_bus_once(executor, plane, until):
    task = make_task()
    for _ in range(3):
        queue(executor, task)
        executor.heartbeat()
        executor.revoke_task(ti=task.ti)
    queue(executor, task)
    await until(executor, lambda: executor.running)
    bodies = submitted(await plane.pull())
    record = await plane.store.get(str(task.ti.id))
    assert [body.submission for body in bodies if body.submission == record.revision] == [record.revision]


class TestNatsIsAway:
    async def test_workloads_stay_queued_and_go_out_once_when_it_is_back(
        self, executor, plane, server, until
    ):
        queue(executor, first := make_task("first"))
        await until(executor, lambda: executor.running)
        server.stop()
        queue(executor, *[make_task(f"t{n}") for n in range(5)])
        with structlog.testing.capture_logs() as logs:
            for _ in range(10):
                executor.heartbeat()
                await asyncio.to_thread(executor._link.wait_for_news, 0.1)
            assert (len(executor.queued_tasks), executor.running) == (5, {first.key})
            server.start()
            await until(executor, lambda: len(executor.running) == 6)
        assert executor.queued_tasks == {}
        bodies = submitted(await plane.pull(limit=20))
        records = {body.workload_id: await plane.store.get(body.workload_id) for body in bodies}
        current = [body for body in bodies if body.submission == records[body.workload_id].revision]
        assert (len(records), len(current)) == (6, 6)
        assert len([line for line in logs if line["event"].startswith("link.")]) <= 2

    async def test_the_scheduler_may_start_first(self, server, make_executor, open_plane, until):
        server.stop()
        with structlog.testing.capture_logs() as logs:
            executor = make_executor()
            queue(executor, make_task())
            await until(executor, lambda: any(line["event"] == "link.bus_unavailable" for line in logs))
            assert len(executor.queued_tasks) == 1
            server.start()  # but nobody has applied the topology yet
            async with open_plane(server.url):
                await until(executor, lambda: executor.running)
        assert [line["event"] for line in logs if line["event"].startswith("link.")] == [
            "link.bus_unavailable",
            "link.bus_available",
        ]

    async def test_what_is_revoked_meanwhile_does_not_go_out(self, executor, plane, server, until):
        await until(executor, executor._link._session._opened.is_set)
        server.stop()
        revoked, kept = make_task("revoked"), make_task("kept")
        queue(executor, revoked, kept)
        executor.heartbeat()
        executor.revoke_task(ti=revoked.ti)
        server.start()
        await until(executor, lambda: executor.running)
        assert [body.coordinates.task_id for body in submitted(await plane.pull())] == ["kept"]

    async def test_an_end_that_came_meanwhile_is_seen(self, executor, plane, until):
        """The gateway wrote it; the executor's connection was down and missed the change."""
        queue(executor, task := make_task())
        await until(executor, lambda: executor.running)
        (lease,) = await plane.lease()
        executor._link._loop.call_soon_threadsafe(drop_connection, executor)
        await plane.finish(lease)
        await until(executor, lambda: not executor.running)
        assert executor.get_event_buffer()[task.key][0] == TaskInstanceState.SUCCESS

    async def test_and_comes_back_empty(self, executor, plane, server, open_plane, until, run_directory):
        """What no agent had yet is handed over again; what one had cannot go on and fails."""
        if not isinstance(server.lifecycle, ProcessLifecycle):
            pytest.skip("the server is in a container, with a store that is not ours to delete")
        queue(executor, had := make_task("had"))
        await until(executor, lambda: executor.running)
        await plane.lease()
        queue(executor, waiting := make_task("waiting"))
        await until(executor, lambda: len(executor.running) == 2)
        await until(executor, lambda: executor._held[had.key].agent and executor._held[waiting.key].seen)
        executor.get_event_buffer()
        lost = executor._held[waiting.key]
        server.kill()
        shutil.rmtree(run_directory / "nats" / "store")
        server.start()
        async with open_plane(server.url) as again:
            await until(executor, lambda: had.key in executor.event_buffer)
            assert executor.get_event_buffer()[had.key][0] == TaskInstanceState.FAILED
            await until(executor, lambda: executor._held.get(waiting.key) not in (None, lost))
            assert executor.running == {waiting.key}
            assert [body.coordinates.task_id for body in submitted(await again.pull())] == ["waiting"]


def drop_connection(executor):
    executor._link._session._open.bus.client._transport.close()


async def test_a_frozen_server_does_not_hold_up_the_scheduler(make_executor, plane, server):
    """Every request would take a minute. The scheduler's calls must not take any of them."""
    if not isinstance(server.lifecycle, ProcessLifecycle):
        pytest.skip("the server is in a container and cannot be stopped by a signal")
    executor = make_executor(request_timeout_seconds=60.0, adoption_wait_seconds=0.5)
    queue(executor, first := make_task("first"))
    while not executor.running:
        executor.heartbeat()
        await asyncio.to_thread(executor._link.wait_for_news, 0.2)
    server.lifecycle.process.signal(signal.SIGSTOP)
    try:
        scheduler = threading.Thread(target=a_busy_scheduler, args=(executor, first))
        scheduler.start()
        await asyncio.to_thread(scheduler.join, 30)
        assert not scheduler.is_alive()
    finally:
        server.lifecycle.process.signal(signal.SIGCONT)
    assert plane


def a_busy_scheduler(executor, running):
    queued = [make_task(f"t{n}") for n in range(5)]
    queue(executor, *queued)
    for _ in range(5):
        executor.heartbeat()
    executor.revoke_task(ti=running.ti)
    executor.revoke_task(ti=queued[0].ti)
    executor.change_state(queued[1].key, TaskInstanceState.FAILED)
    executor.try_adopt_task_instances([StartedTask()])
    executor.heartbeat()


@dataclass
class StartedTask:
    """The few columns of a task instance that the scheduler loads for adoption."""

    id: uuid.UUID = field(default_factory=uuid.uuid4)
    state: str = TaskInstanceState.RUNNING

    @property
    def key(self):
        return TaskInstanceKey(dag_id="d", task_id=str(self.id), run_id="r", try_number=1, map_index=-1)


class TestASchedulerIsKilled:
    @pytest.fixture
    async def killed(self, plane, server):
        """Tasks that a scheduler handed over before it got SIGKILL, one of them leased."""
        tasks = [StartedTask() for _ in range(3)]
        scheduler = await asyncio.create_subprocess_exec(
            sys.executable,
            str(KILLED_SCHEDULER),
            *[str(task.id) for task in tasks],
            env={**os.environ, "JETBRIDGE_NATS_URL": server.url},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(120):
            while b"handed over" not in (line := await scheduler.stdout.readline()):
                assert line
        leases = await plane.lease(limit=3)
        scheduler.kill()
        await scheduler.wait()
        return tasks, leases

    async def test_the_next_one_sees_its_tasks_to_their_end(self, killed, plane, make_executor, until):
        tasks, leases = killed
        await plane.finish(leases[0], reason="while nobody looked")
        executor = make_executor()
        never_handed_over = StartedTask()
        assert executor.try_adopt_task_instances([*tasks, never_handed_over]) == [never_handed_over]
        assert len(executor.running) == 3
        await until(executor, lambda: len(executor.running) == 2)
        await plane.finish(leases[1], outcome=Outcome.FAILED)
        await plane.finish(leases[2])
        await until(executor, lambda: not executor.running)
        states = sorted(state for state, _ in executor.event_buffer.values() if state != "running")
        assert states == ["failed", "success", "success"]


async def test_two_executors_side_by_side_keep_to_their_own(make_executor, plane, until):
    one, two = make_executor(parallelism=3), make_executor(parallelism=3)
    queue(one, *[make_task(f"one{n}") for n in range(3)])
    queue(two, *[make_task(f"two{n}") for n in range(3)])
    await until(one, lambda: len(one.running) == 3)
    await until(two, lambda: len(two.running) == 3)
    for lease in await plane.lease(limit=6):
        await plane.finish(lease)
    for executor, prefix in ((one, "one"), (two, "two")):
        await until(executor, lambda executor=executor: not executor.running)
        events = executor.get_event_buffer()
        assert {key.task_id for key in events} == {f"{prefix}{n}" for n in range(3)}


async def test_a_task_that_went_on_at_another_scheduler_frees_its_slot_here(make_executor, plane, until):
    one, two = make_executor(), make_executor()
    deferring = make_task()
    queue(one, deferring)
    await until(one, lambda: one.running)
    await plane.lease()
    queue(two, deferring)
    await until(two, lambda: two.running)
    await until(one, lambda: not one.running)
    assert [state for state, _ in one.event_buffer.values() if state != "running"] == []
    (lease,) = await plane.lease(agent="worker-2")
    await plane.finish(lease, "worker-2")
    await until(two, lambda: not two.running)
    assert two.get_event_buffer()[deferring.key][0] == TaskInstanceState.SUCCESS


@pytest.mark.parametrize("make", [make_task, make_callback])
async def test_what_was_released_and_removed_between_two_looks_frees_its_slot_without_an_event(
    executor, plane, until, make
):
    """Whoever released it has Airflow queue it anew; a failure told now would fail the next attempt."""
    workload = make()
    queue(executor, workload)
    await until(executor, lambda: executor.running)
    (lease,) = await plane.lease()
    await until(executor, lambda: executor.event_buffer)
    executor.get_event_buffer()
    await plane.store.release(lease, "agent worker-1 was lost")
    await plane.store.remove_released(lease)
    async with asyncio.timeout(30):
        while executor._link._session._open.workloads.get(lease.workload_id):
            await asyncio.sleep(0.02)
    await until(executor, lambda: not executor.running)
    assert (executor.event_buffer, executor.queued_tasks, executor.queued_callbacks) == ({}, {}, {})


async def test_what_nobody_took_note_of_is_cleared_away(plane, make_executor):
    """Its scheduler died after the task had told Airflow that it succeeded."""
    await plane.store.submit(new_workload(task := make_task()))
    (lease,) = await plane.lease()
    await plane.finish(lease)
    executor = make_executor(
        abandoned_after_seconds=0.1, sweep_interval_seconds=0.1, deletion_marker_seconds=1
    )
    await gone(executor, plane, str(task.ti.id))
    async with asyncio.timeout(30):
        while (await plane.bus.js.stream_info("KV_workloads")).state.messages:
            executor.heartbeat()
            await asyncio.sleep(0.05)


async def test_stopping_lets_what_is_on_its_way_arrive(executor, plane):
    queue(executor, *[make_task(f"t{n}") for n in range(8)])
    executor.heartbeat()
    executor.end()
    assert await plane.waiting() == 8
