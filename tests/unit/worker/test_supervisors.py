"""Which supervisor takes the next task, and which goes. Processes are stood for by their channels."""

from __future__ import annotations

import os
import sched

import pytest

from jetbridge.contracts.messages import Outcome
from jetbridge.worker import frames, supervisors
from jetbridge.worker.frames import Order, Result
from jetbridge.worker.supervisors import Supervisor, WaitingSupervisors

MAX_ORDERS = 50


class Clock:
    now = 100.0

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


def start(dag_id="dag", good_seconds=0.0):
    hold = frames.Hold(until=0.0, heard_at=0.0)
    return frames.Start(lease="l", hold=hold, dag_id=dag_id, good_seconds=good_seconds)


class Bench:
    """Waiting supervisors, and the far ends of their channels."""

    def __init__(self, clock):
        self.later = sched.scheduler(clock, clock.pass_by)
        self.waiting = WaitingSupervisors(self.later, MAX_ORDERS)
        self.far = {}
        self.ends = []

    def supervisor(self, pid, dag_id="dag"):
        ours, theirs = frames.channel()
        ours.settimeout(0)
        theirs.settimeout(0)
        supervisor = Supervisor(pid, ours, dag_id)
        self.far[pid] = theirs
        self.ends += [ours, theirs]
        return supervisor

    def put(self, pid, dag_id="dag"):
        supervisor = self.supervisor(pid, dag_id)
        self.waiting.put(supervisor)
        return supervisor

    def take(self, dag_id="dag"):
        descriptor = frames.write_order(Order(lease="l", spec=b"{}", token="t"))
        try:
            supervisor = self.waiting.take(start(dag_id), descriptor)
            return supervisor and supervisor.pid
        finally:
            os.close(descriptor)

    def is_dismissed(self, pid):
        try:
            return frames.receive_order(self.far[pid]) is None
        except BlockingIOError:
            return False


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(supervisors.time, "monotonic", clock)
    return clock


@pytest.fixture
def bench(clock):
    bench = Bench(clock)
    yield bench
    for end in bench.ends:
        end.close()


def test_the_one_that_waited_least_takes_the_order(bench):
    bench.put(1)
    bench.put(2)
    assert [bench.take(), bench.take(), bench.take()] == [2, 1, None]
    assert frames.receive_order(bench.far[2]).lease == "l"


def test_a_task_of_another_dag_is_not_for_it(bench):
    bench.put(1, dag_id="one")
    assert bench.take("another") is None
    assert bench.take("one") == 1


def test_a_lease_with_a_time_of_its_own_is_not_for_it(bench):
    bench.put(1)
    assert bench.waiting.take(start(good_seconds=60.0), 0) is None


def test_what_is_run_alone_leaves_no_supervisor(bench):
    bench.put(1, dag_id="")
    assert bench.take("") is None
    assert bench.is_dismissed(1)


def test_one_that_is_gone_is_passed_over(bench):
    bench.put(1)
    bench.put(2)
    bench.far[2].close()
    assert bench.take() == 1


def test_after_a_while_without_work_it_goes(bench, clock):
    bench.put(1)
    bench.later.run()
    assert clock.now == 100.0 + supervisors.IDLE_SECONDS
    assert bench.is_dismissed(1)
    assert bench.take() is None


def test_one_that_worked_meanwhile_waits_anew(bench, clock):
    supervisor = bench.put(1)
    clock.now += 1.5
    assert bench.take() == 1
    assert frames.receive_order(bench.far[1])
    bench.waiting.put(supervisor)
    clock.now += 1.0
    bench.later.run(blocking=False)
    assert not bench.is_dismissed(1)
    assert bench.take() == 1


def test_one_that_served_enough_or_is_old_goes(bench, clock):
    served = bench.supervisor(1)
    served.orders = MAX_ORDERS
    old = bench.supervisor(2)
    old.born = clock.now - supervisors.MAX_AGE_SECONDS - 1
    bench.waiting.put(served)
    bench.waiting.put(old)
    assert bench.is_dismissed(1)
    assert bench.is_dismissed(2)
    assert bench.take() is None


def test_a_new_one_takes_the_place_of_the_one_that_waited_longest(bench):
    bench.put(1)
    bench.put(2)
    bench.waiting.make_room()
    assert bench.is_dismissed(1)
    assert bench.take() == 2


def test_the_last_word_is_kept_and_silence_is_no_word(bench):
    supervisor = bench.supervisor(1)
    assert supervisor.listen() is None
    said = Result(outcome=Outcome.SUCCEEDED, exit_code=0)
    bench.far[1].send(frames.encode(said))
    assert supervisor.listen() == said
    bench.far[1].close()
    assert supervisor.listen() is None
    assert supervisor.result == said
