"""The executor waits in place of the scheduler's sleep, and what happens meanwhile ends the wait."""

import pytest
from airflow.executors.executor_loader import ExecutorLoader

from jetbridge.scheduler import idling
from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.idling import Pace, may_wait
from jetbridge.scheduler.settings import SchedulerSettings

LONG = 5.0
"""Seconds. What ends such a wait is never its time: the fake link's ``log`` would tell."""

IDLE_SLEEP = "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"


@pytest.fixture(autouse=True)
def airflow_does_not_sleep(monkeypatch):
    monkeypatch.setenv(IDLE_SLEEP, "0")


@pytest.fixture(autouse=True)
def the_loop_needs_no_rest(monkeypatch):
    monkeypatch.setattr(idling, "LONGEST_REST_SECONDS", 0.0)


@pytest.fixture
def executor(link):
    settings = SchedulerSettings(idle_wait_seconds=LONG, tell_agent_after_seconds=0)
    executor = RemoteExecutor(parallelism=4, link=link, settings=settings)
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


def test_a_nudge_does_not_where_there_is_no_slot(executor, link, queue, task, waited):
    ones = [queue(task(f"t{number}")) for number in range(executor.parallelism)]
    executor.heartbeat()
    link.news.extend([link.acknowledge, lambda: link.lease(id_of(ones[0]))])
    link.news.extend([lambda: setattr(link, "nudge", True), lambda: link.finish(id_of(ones[0]))])
    executor.heartbeat()
    assert not link.news  # it went on to wait, until a task had ended
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


@pytest.fixture
def rests(executor, monkeypatch):
    """The number of running workloads at each rest of the loop."""
    rests = []
    monkeypatch.setattr(executor._pace, "rest", lambda *_: rests.append(len(executor.running)))
    return rests


@pytest.mark.parametrize(("running", "rested"), [(1, []), (3, [3])])
def test_the_loop_rests_only_where_others_may_end_meanwhile(
    executor, link, queue, task, rests, running, rested
):
    for number in range(running):
        queue(task(f"t{number}"))
    executor.heartbeat()
    link.acknowledge()
    link.nudge = True
    rests.clear()
    executor.heartbeat()
    assert rests == rested


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


class Clock:
    """Time that passes when it is told to, and while a link is waited on."""

    def __init__(self):
        self.now = 100.0
        self.waits = []

    def __call__(self):
        return self.now

    def wait_for_news(self, seconds):
        self.waits.append(round(seconds, 3))
        self.now += seconds / 2 if len(self.waits) == 1 else seconds
        return len(self.waits) == 1


@pytest.mark.parametrize(
    ("worked", "waited", "expected"),
    [(0.08, 0.0, [0.08, 0.04]), (5.0, 0.0, [0.2, 0.1]), (0.08, 1.0, []), (0.08, 0.05, [0.03, 0.015])],
    ids=["as long as it worked", "at most so long", "not after a wait", "with what was waited"],
)
def test_the_loop_rests_for_as_long_as_it_worked(worked, waited, expected, monkeypatch):
    monkeypatch.setattr(idling, "LONGEST_REST_SECONDS", 0.2)
    clock, looks = Clock(), []
    pace = Pace(clock)
    pace.begin()
    pace.end()
    clock.now += worked
    pace.begin()
    clock.now += waited
    pace.rest(clock, lambda: looks.append(clock.now))
    assert clock.waits == expected
    assert len(looks) == bool(expected)


def test_the_first_turn_has_nothing_to_rest_from():
    clock = Clock()
    pace = Pace(clock)
    pace.begin()
    pace.rest(clock, lambda: None)
    assert not clock.waits
