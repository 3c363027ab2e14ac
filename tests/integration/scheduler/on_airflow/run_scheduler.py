"""
Airflow's own scheduler code with our executor, on a real database and a real NATS server.

A scheduler died; what it left is adopted, run by an agent that this script plays, and ends. Prints what the
database says then, as JSON.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import one_dag
from airflow.executors.executor_loader import ExecutorLoader
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from jetbridge.bus.connection import open_bus
from jetbridge.bus.lanes import Lane
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import NewWorkload, WorkloadStore
from jetbridge.contracts.envelope import open_envelope, read_body
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import (
    Outcome,
    TaskCoordinates,
    WorkloadKind,
    WorkloadLeased,
    WorkloadSubmitted,
)

LEFT_BEHIND = {
    "queued_unsent": ("queued", {}),
    "queued_without_message": ("queued", {}),
    "queued_refused": ("queued", {"executor_config": {"jetbridge": {"labels": ["gpu"]}}}),
    "running": ("running", {}),
    "running_lost": ("running", {}),
}


class Agent:
    """Plays gateway and agent."""

    def __init__(self, bus, store):
        self.bus, self.store = bus, store

    async def hand_over(self, ti, *, leased):
        """Do what the dead scheduler had done."""
        workload = NewWorkload(
            workload_id=str(ti.id),
            kind=WorkloadKind.TASK,
            queue="default",
            priority_weight=1,
            coordinates=TaskCoordinates(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id),
            spec=b"{}",
        )
        if not leased:
            await self.store.write_submitted(workload)
            return
        await self.store.submit(workload)
        await self.lease(1)

    async def lease(self, limit):
        leases = []
        async with Lane(self.bus, "default") as lane:
            while len(leases) < limit:
                for message in await lane.take(limit):
                    body = read_body(open_envelope(message.data), WorkloadSubmitted)
                    current = await self.store.get(body.workload_id)
                    lease = await self.store.offer(current, "worker-1", message.reply)
                    await self.store.accept(lease, "worker-1")
                    await self.tell(lease, body.coordinates)
                    leases.append(lease)
        return leases

    async def tell(self, lease: LeaseKey, coordinates):
        body = WorkloadLeased(
            workload_id=lease.workload_id,
            epoch=lease.epoch,
            agent="worker-1",
            queue="default",
            coordinates=coordinates,
        )
        await self.store.publish_event(body, f"leased.{lease}")


class Scheduler:
    """A round of Airflow's loop, with Airflow's own methods."""

    def __init__(self):
        self.job = Job()
        self.runner = SchedulerJobRunner(job=self.job, executors=[ExecutorLoader.get_default_executor()])
        with create_session() as session:
            session.add(self.job)
            session.commit()
            session.refresh(self.job)
            session.expunge(self.job)
        self.executor = self.runner.executor
        self.executor.job_id = self.job.id
        self.executor.start()

    def round(self):
        self.executor.heartbeat()
        with create_session() as session:
            self.runner._process_executor_events(self.executor, session)
        with create_session() as session:
            self.runner._process_task_event_logs(self.executor._task_event_logs, session)

    async def rounds_until(self, condition):
        async with asyncio.timeout(60):
            while True:
                self.round()
                if condition():
                    return
                await asyncio.to_thread(self.executor._link.wait_for_news, 0.2)


def leave_behind():
    one_dag.write("orphans", {task_id: arguments for task_id, (_, arguments) in LEFT_BEHIND.items()})
    with create_session() as session:
        dead = Job(job_type="SchedulerJob", state="failed")
        session.add(dead)
        session.flush()
        for ti in one_dag.run("orphans", session).task_instances:
            ti.state, ti.try_number, ti.queued_by_job_id = LEFT_BEHIND[ti.task_id][0], 1, dead.id
            ti.queued_dttm = datetime.now(UTC) - timedelta(minutes=1)
    return tasks()


def tasks():
    with create_session() as session:
        found = {ti.task_id: ti for ti in session.scalars(select(TaskInstance))}
        session.expunge_all()
    return found


async def main():
    before = leave_behind()
    async with open_bus(BusSettings(), "agent") as bus:
        agent = Agent(bus, await WorkloadStore.open(bus))
        await agent.hand_over(before["running"], leased=True)
        await agent.hand_over(before["queued_without_message"], leased=False)
        scheduler = Scheduler()
        scheduler.runner.adopt_or_reset_orphaned_tasks()
        adopted = tasks()
        await scheduler.rounds_until(lambda: len(scheduler.executor.running) == 3)
        leases = await agent.lease(2)
        await scheduler.rounds_until(lambda: tasks()["queued_unsent"].external_executor_id)
        await scheduler.rounds_until(lambda: logged("jetbridge.leased") == 3)
        for lease in leases:  # the tasks tell Airflow of their success themselves, as over the Execution API
            succeed(lease.workload_id)
            await agent.store.finish(lease, "worker-1", Outcome.SUCCEEDED, 0, "")
        running = await agent.store.get(str(before["running"].id))
        lease = LeaseKey(running.record.workload_id, running.record.epoch)
        await agent.store.finish(lease, "worker-1", Outcome.FAILED, -9, "killed by the kernel")
        await scheduler.rounds_until(lambda: not scheduler.executor.running)
        scheduler.round()
        scheduler.executor.end()
    return {
        "job": scheduler.job.id,
        "before": said(before),
        "adopted": said(adopted),
        "after": said(tasks()),
        "log": log(),
    }


def succeed(ti_id):
    with create_session() as session:
        (ti,) = [ti for ti in session.scalars(select(TaskInstance)) if str(ti.id) == ti_id]
        ti.state = TaskInstanceState.SUCCESS


def said(found):
    names = ("id", "state", "try_number", "queued_by_job_id", "external_executor_id")
    return {task_id: {name: as_json(getattr(ti, name)) for name in names} for task_id, ti in found.items()}


def as_json(value):
    return value if isinstance(value, int | None) else str(value)


def logged(event):
    return [entry["event"] for entry in log()].count(event)


def log():
    with create_session() as session:
        return [
            {"event": entry.event, "task_id": entry.task_id, "extra": entry.extra}
            for entry in session.scalars(select(Log).order_by(Log.id))
        ]


Path(sys.argv[1]).write_text(json.dumps(asyncio.run(main())))
