"""Triggers of Airflow's database, run by a triggerer agent that has none."""

from datetime import timedelta

import pendulum
import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger, TimeDeltaTrigger


@pytest.fixture
def triggerer(running_plane):
    return running_plane.start_triggerer()


def test_a_date_time_trigger_resumes_its_task(world, triggerer, eventually):  # noqa: ARG001
    moment = pendulum.now("UTC").add(seconds=2)
    ti, _ = world.defer(DateTimeTrigger(moment=moment))
    eventually(lambda: world.state(ti) == "scheduled")
    assert world.event(ti) == moment


def test_a_time_delta_trigger_resumes_its_task(world, triggerer, eventually):  # noqa: ARG001
    ti, _ = world.defer(TimeDeltaTrigger(timedelta(seconds=1)))
    eventually(lambda: world.state(ti) == "scheduled")
