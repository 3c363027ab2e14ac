"""A Dag that sets nearly everything a Dag can."""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, TaskGroup, setup, task, teardown


def tell(context):
    context["ti"].log.info("told")


with DAG(
    "corpus-everything",
    dag_display_name="Everything a Dag can say",
    description='Ünïcode, 日本語 and "quotes"',
    schedule="15 3 * * 1",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    end_date=datetime(2030, 1, 1, tzinfo=UTC),
    catchup=True,
    max_active_runs=3,
    max_active_tasks=7,
    max_consecutive_failed_dag_runs=2,
    dagrun_timeout=timedelta(hours=2),
    tags=["corpus", "a tag with spaces"],
    owner_links={"data": "https://example.com/data"},
    default_args={"owner": "data", "retries": 2, "retry_delay": timedelta(minutes=3)},
    params={"limit": Param(10, type="integer", minimum=1), "name": "x"},
    doc_md="# Title\n\nSome *text*.",
    is_paused_upon_creation=False,
    on_failure_callback=tell,
    on_success_callback=tell,
    render_template_as_native_obj=True,
    fail_fast=False,
):

    @setup
    def prepare():
        return {"a": 1}

    @teardown
    def clean_up():
        pass

    @task
    def numbers():
        return [1, 2, 3]

    @task(pool="a_pool", priority_weight=5, queue="gpu", execution_timeout=timedelta(minutes=1))
    def square(number, offset):
        return number * number + offset

    with TaskGroup("group") as group:
        first = EmptyOperator(task_id="first", weight_rule="upstream", trigger_rule="all_done")
        second = BashOperator(task_id="second", bash_command="echo {{ params.limit }}", env={"A": "b"})
        first >> second

    ready = prepare()
    ready >> square.partial(offset=2).expand(number=numbers()) >> group >> clean_up()
