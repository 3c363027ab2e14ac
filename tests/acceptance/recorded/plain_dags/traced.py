"""Tasks whose traces a test knows: a value handed on, a wait in a triggerer, an error with a secret in it."""

from __future__ import annotations

import pendulum
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import Variable, dag, task

SECRET = "m4rk3r-that-must-stay-here"


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1), catchup=False)
def traced():
    @task
    def make():
        return {"value": SECRET}

    @task
    def take(made):
        return len(made["value"])

    @task(trigger_rule="all_done")
    def fail(_taken):
        Variable.get("missing", default=SECRET)
        raise RuntimeError(f"a text with {SECRET} in it")

    wait = DateTimeSensorAsync(
        task_id="wait", target_time="{{ (dag_run.run_after + macros.timedelta(seconds=1)).isoformat() }}"
    )
    taken = take(make())
    taken >> wait
    taken >> fail(taken)


traced()
