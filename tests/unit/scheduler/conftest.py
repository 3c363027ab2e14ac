"""An executor on a link without a bus, and workloads for it."""

import pytest

from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.settings import SchedulerSettings
from jetbridge.scheduler.testing import FakeLink, make_callback, make_task


@pytest.fixture
def link():
    return FakeLink()


@pytest.fixture
def executor(link):
    executor = RemoteExecutor(
        parallelism=4, link=link, settings=SchedulerSettings(tell_agent_after_seconds=0)
    )
    executor.start()
    return executor


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
