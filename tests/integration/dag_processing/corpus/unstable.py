"""A Dag that differs from parse to parse, of which Airflow warns."""

from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("corpus-unstable", schedule=None, start_date=datetime.now()):  # noqa: DTZ005 - the point of it
    EmptyOperator(task_id="task")
