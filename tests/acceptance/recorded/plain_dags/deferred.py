"""Tasks that wait in a triggerer: deferred by a worker, and started from there."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import dag, task

WAIT = timedelta(minutes=5)


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1), params={"directory": ""}, catchup=False)
def deferred():
    @task
    def prepare():
        return {"big": "x" * 100}

    @task
    def count(prepared):
        return len(prepared["big"])

    arrived = FileSensor(
        task_id="arrived",
        filepath="{{ params.directory }}/arrived",
        fs_conn_id="fs_here",
        deferrable=True,
        poke_interval=0.2,
        timeout=WAIT.total_seconds(),
    )
    never = FileSensor(
        task_id="never",
        filepath="{{ params.directory }}/never",
        fs_conn_id="fs_here",
        deferrable=True,
        poke_interval=0.2,
        timeout=2,
    )
    soon = DateTimeSensorAsync(
        task_id="soon",
        target_time="{{ (dag_run.run_after + macros.timedelta(seconds=1)).isoformat() }}",
        start_from_trigger=True,
        end_from_trigger=True,
    )
    prepared = prepare()
    prepared >> arrived >> count(prepared)
    arrived >> never
    soon  # noqa: B018 - a Dag is written so


deferred()
