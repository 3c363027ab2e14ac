"""One task of which the benchmark of triggers makes deferred instances by itself."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("waiting", schedule=None, catchup=False, max_active_tasks=5000):
    EmptyOperator(task_id="task")
