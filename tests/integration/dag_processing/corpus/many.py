"""Dags made in a loop, with schedules of every kind."""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, MultipleCronTriggerTimetable

SCHEDULES = {
    "none": None,
    "once": "@once",
    "continuous": "@continuous",
    "delta": timedelta(days=2),
    "trigger": CronTriggerTimetable("0 1 * * 3", timezone="Europe/Rome", interval=timedelta(days=5)),
    "several": MultipleCronTriggerTimetable("0 1 * * 3", "0 2 * * 4", timezone="UTC"),
}

for name, schedule in SCHEDULES.items():
    with DAG(
        f"corpus-schedule-{name}",
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        max_active_runs=1,
    ):
        EmptyOperator(task_id="task")
