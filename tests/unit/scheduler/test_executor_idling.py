"""The executor waits in place of the scheduler's sleep, and what happens meanwhile ends the wait."""

import pytest
from airflow.executors.executor_loader import ExecutorLoader

from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.idling import may_wait
from jetbridge.scheduler.settings import SchedulerSettings

LONG = 5.0
"""Seconds. What ends such a wait is never its time: the fake link's ``log`` would tell."""

IDLE_SLEEP = "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"


@pytest.fixture(autouse=True)
def airflow_does_not_sleep(monkeypatch):
    monkeypatch.setenv(IDLE_SLEEP, "0")


@pytest.fixture
def executor(link):
    executor = RemoteExecutor(parallelism=4, link=link, settings=SchedulerSettings(idle_wait_seconds=LONG))
    executor.start()
    return executor


@pytest.fixture
def waited(link):
    """Whether a wait lasted its whole time."""
    return lambda: "waited" in link.log


def id_of(workload):
    return str(workload.ti.id)


def test_an_end_during_the_wait_ends_it(executor, link, queue, task, waited):
    one = queue(task())
    executor.heartbeat()
    link.news.extend([link.acknowledge, lambda: link.lease(id_of(one)), lambda: link.finish(id_of(one))])
    executor.heartbeat()
    assert executor.get_event_buffer()[one.key][0] == "success"
    assert not waited()


def test_what_an_agent_begins_is_noted_and_waited_on(executor, link, queue, task):
    one = queue(task())
    executor.heartbeat()
    link.news.extend([link.acknowledge, lambda: link.lease(id_of(one)), lambda: setattr(link, "nudge", True)])
    executor.heartbeat()
    assert executor.get_event_buffer()[one.key][0] == "running"


def test_a_nudge_ends_the_wait(executor, link, waited):
    link.news.append(lambda: setattr(link, "nudge", True))
    executor.heartbeat()
    assert not link.news
    assert not waited()


def test_a_nudge_that_came_before_it_does_too(executor, link, waited):
    link.nudge = True
    executor.heartbeat()
    assert not waited()


def test_after_handing_over_there_may_be_more_to_queue(executor, link, queue, task, waited):
    queue(task())
    executor.heartbeat()
    assert len(link.submitted) == 1
    assert not waited()


def test_what_happened_before_is_told_without_a_wait(executor, link, queue, task, waited):
    one = queue(task())
    executor.heartbeat()
    link.acknowledge()
    link.finish(id_of(one))
    executor.heartbeat()
    assert one.key in executor.event_buffer
    assert not waited()


def test_a_wait_without_news_ends(link, waited):
    executor = RemoteExecutor(link=link, settings=SchedulerSettings(idle_wait_seconds=0.01))
    executor.start()
    executor.heartbeat()
    assert waited()


@pytest.mark.parametrize(
    ("sleep", "executors", "expected"), [("0", 1, True), ("1", 1, False), ("0", 2, False)]
)
def test_who_may_wait(monkeypatch, sleep, executors, expected):
    monkeypatch.setenv(IDLE_SLEEP, sleep)
    monkeypatch.setattr(ExecutorLoader, "get_executor_names", lambda: [None] * executors)
    assert may_wait() is expected


def test_nothing_waits_where_airflow_sleeps(link, monkeypatch, waited):
    monkeypatch.setenv(IDLE_SLEEP, "1")
    executor = RemoteExecutor(link=link, settings=SchedulerSettings(idle_wait_seconds=LONG))
    executor.start()
    executor.heartbeat()
    assert not waited()
