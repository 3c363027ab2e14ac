"""
The scheduler's loop turns when something happened, and not by the clock.

Airflow's loop sleeps ``[scheduler] scheduler_idle_sleep_time``, one second, whenever nothing was queued and
nothing ended: most of the time between two tasks of a chain, for every executor there is. With that setting
at 0 the executor waits in its place, and a task that ends, or a nudge, ends the wait. For Airflow 3.3;
``tests/unit/scheduler/test_airflow_contract.py`` looks whether its loop still sleeps as described.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader

from jetbridge.scheduler.ports import Link


def may_wait() -> bool:
    """
    Say whether waiting is left to this executor.

    Not when Airflow sleeps by itself, and not beside another executor, whose heartbeat would wait for ours.
    """
    sleeps = conf.getfloat("scheduler", "scheduler_idle_sleep_time") > 0
    return not sleeps and len(ExecutorLoader.get_executor_names()) == 1


def wait_for_something(
    link: Link, seconds: float, *, look: Callable[[], None], found: Callable[[], bool]
) -> None:
    """
    Wait until ``found`` says so, with a ``look`` at each piece of news; at most ``seconds``.

    What may come up without any news (a new Dag run, a schedule) is found as late as Airflow finds it.
    """
    until = monotonic() + seconds
    while not found() and (left := until - monotonic()) > 0:
        if link.wait_for_news(left):
            look()


LONGEST_REST_SECONDS = 0.2
"""A turn that took longer did something else, clean up for example, and ends need not wait as long again."""


class Pace:
    """
    Has the loop work at most half of the time while one thing after the other happens.

    A turn of the loop costs much the same whether one task has ended or ten, and most of it is paid by the
    database. So it rests for as long as it has worked, and finds what has come up meanwhile together. Where
    little happens the rest is over before anything ends it.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._left_at: float | None = None
        self._rested_at = 0.0

    def begin(self) -> None:
        """Note that the loop has done its work."""
        now = self._clock()
        worked = 0.0 if self._left_at is None else now - self._left_at
        self._rested_at = now + min(worked, LONGEST_REST_SECONDS)

    def rest(self, link: Link, look: Callable[[], None]) -> None:
        """Wait for what is left of the rest, with a ``look`` at each piece of news."""
        while (left := self._rested_at - self._clock()) > 0:
            if link.wait_for_news(left):
                look()

    def end(self) -> None:
        """Note that the loop works again."""
        self._left_at = self._clock()
