"""An executor on a link without a bus, and workloads for it."""

import uuid
from pathlib import Path

import pytest
from airflow.executors.workloads import BundleInfo, ExecuteCallback, ExecuteTask, TaskInstanceDTO
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod

from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.testing import FakeLink

TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.fixture
def link():
    return FakeLink()


@pytest.fixture
def executor(link):
    executor = RemoteExecutor(parallelism=4, link=link)
    executor.start()
    return executor


def make_task(name="t", weight=1, queue="default", executor_config=None, **ti):
    dto = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_id="d",
        run_id="r",
        task_id=name,
        try_number=1,
        dag_version_id=uuid.uuid4(),
        pool_slots=1,
        priority_weight=weight,
        queue=queue,
        executor_config=executor_config,
        context_carrier={"traceparent": TRACEPARENT},
        **ti,
    )
    return ExecuteTask(
        token="airflow-token-of-the-plane",
        ti=dto,
        dag_rel_path=Path("d.py"),
        bundle_info=BundleInfo(name="dags"),
        log_path=f"dag_id=d/run_id=r/task_id={name}/attempt=1.log",
    )


def make_callback(kwargs=None):
    return ExecuteCallback(
        token="airflow-token-of-the-plane",
        callback=CallbackDTO(
            id=str(uuid.uuid4()),
            fetch_method=CallbackFetchMethod.IMPORT_PATH,
            data={
                "path": "alerts.late",
                "kwargs": {"context": {"dag_run": {"dag_run_id": "r"}}, **(kwargs or {})},
                "dag_id": "d",
            },
        ),
        dag_rel_path=Path("d.py"),
        bundle_info=BundleInfo(name="dags"),
        log_path="executor_callbacks/d/r/1",
    )


@pytest.fixture
def task():
    return make_task


@pytest.fixture
def callback():
    return make_callback


@pytest.fixture
def queue(executor):
    """Queue workloads as the scheduler does."""

    def queue(*workloads):
        for workload in workloads:
            executor.queue_workload(workload, session=None)
        return workloads[0]

    return queue


@pytest.fixture
def handed_over(executor, link, queue):
    """Queue one workload and have it acknowledged."""

    def hand_over(workload):
        queue(workload)
        executor.heartbeat()
        link.acknowledge()
        executor.heartbeat()
        assert workload.key in executor.running
        return workload

    return hand_over
