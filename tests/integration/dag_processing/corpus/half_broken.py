"""A file of which one Dag can be serialized and the other cannot."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("corpus-good-half", schedule=None):
    EmptyOperator(task_id="task")

with DAG("corpus-bad-half", schedule=None, params={"unserializable": range(3)}):
    EmptyOperator(task_id="task")
