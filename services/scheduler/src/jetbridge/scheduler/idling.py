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
    while not (found() or link.nudged()) and (left := until - monotonic()) > 0:
        if link.wait_for_news(left):
            look()
