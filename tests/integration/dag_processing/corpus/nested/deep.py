"""A Dag in a folder, in two files' worth of names."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("corpus-deep", schedule="@weekly"):
    EmptyOperator(task_id="task")
