"""
The executors under test: each with the same Airflow, database settings, Dags and slots, and its own worker.

CeleryExecutor and EdgeExecutor come from Airflow's providers, as their documentation sets them up, with all
that is not the executor the same. Their workers read the Dag files from the plane's folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.airflow import airflow_command
from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import redis
from jetbridge.devstack.stack import REMOTE_EXECUTOR, DevStack, StackOptions

DAGS = Path(__file__).parent / "dags"
SLOTS = 16
CELERY = "airflow.providers.celery.executors.celery_executor.CeleryExecutor"
EDGE = "airflow.providers.edge3.executors.EdgeExecutor"
READY_SECONDS = 120.0
IMPORTED_BY_EACH_TASK = ("airflow.sdk.execution_time.task_runner", "airflow.dag_processing.dagbag")
"""What a task's process imports anew when the pool's process that forks it has not: 0.3 CPU-seconds here."""

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Contender:
    """
    One executor. ``prepare`` starts what it needs and returns settings, ``work`` starts its worker.

    ``parallelism`` is what the scheduler has queued and running at most. LocalExecutor has as many processes,
    so there it is the slots; the others keep Airflow's own 32, and some work waits at their worker.
    """

    name: str
    executor: str
    parallelism: int = 32
    idle_sleep_seconds: float | None = None
    agents: tuple[AgentSpec, ...] = ()
    gateways: int = 0
    prepare: Callable[[Supervisor], Environment] = lambda _supervisor: {}
    work: Callable[[DevStack], None] = lambda _stack: None

    def options(self, extra: Environment) -> StackOptions:
        """Return the stack to measure it in."""
        sleep = (
            {}
            if self.idle_sleep_seconds is None
            else {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": str(self.idle_sleep_seconds)}
        )
        return StackOptions(
            dags=DAGS,
            executor=self.executor,
            agents=self.agents,
            gateways=self.gateways,
            isolate=False,
            plane_extra={"AIRFLOW__CORE__PARALLELISM": str(self.parallelism), **sleep, **extra},
            label=f"bench-{self.name}",
        )

    @contextmanager
    def running(self, directory: Path) -> Iterator[tuple[DevStack, tuple[Supervisor, ...]]]:
        """Start everything; yields the stack and the supervisors whose processes count."""
        with ExitStack() as stack:
            beside = stack.enter_context(Supervisor(directory))
            devstack = stack.enter_context(DevStack(self.options(self.prepare(beside))))
            self.work(devstack)
            yield devstack, (devstack.supervisor, beside)


def _celery_settings(supervisor: Supervisor) -> Environment:
    url = redis.start(supervisor).url
    return {
        "AIRFLOW__CELERY__BROKER_URL": url,
        "AIRFLOW__CELERY__RESULT_BACKEND": url,
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS),
    }


def _celery_preloaded(supervisor: Supervisor) -> Environment:
    return {
        **_celery_settings(supervisor),
        "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": IMPORTED_BY_EACH_TASK}),
    }


def _celery_worker(stack: DevStack) -> None:
    environment = stack.airflow.scheduler.command.env
    worker = stack.supervisor.start(
        "peer-celery", airflow_command(environment, "celery", "worker", "--skip-serve-logs")
    )
    worker.wait_ready(lambda: " ready." in worker.log_tail(200), timeout_seconds=READY_SECONDS)


def _edge_settings(_supervisor: Supervisor) -> Environment:
    return {"AIRFLOW__EDGE__API_ENABLED": "True"}


def _edge_worker(stack: DevStack) -> None:
    environment = {
        **stack.airflow.scheduler.command.env,
        "AIRFLOW__EDGE__API_URL": f"{stack.airflow.url}/edge_worker/v1/rpcapi",
    }
    command = airflow_command(
        environment, "edge", "worker", "--concurrency", str(SLOTS), "--queues", "default"
    )
    worker = stack.supervisor.start("peer-edge", command)
    worker.wait_ready(lambda: "Starting worker" in worker.log_tail(200), timeout_seconds=READY_SECONDS)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("local", "LocalExecutor", parallelism=SLOTS),
        Contender("local-0.1", "LocalExecutor", parallelism=SLOTS, idle_sleep_seconds=0.1),
        Contender("celery", CELERY, prepare=_celery_settings, work=_celery_worker),
        Contender("celery-preloaded", CELERY, prepare=_celery_preloaded, work=_celery_worker),
        Contender("edge", EDGE, prepare=_edge_settings, work=_edge_worker),
        Contender("remote", REMOTE_EXECUTOR, agents=(AgentSpec(name="bench", slots=SLOTS),), gateways=2),
    )
}
