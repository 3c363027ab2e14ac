"""Dag and task callbacks run where the Dag files are, and none is lost with an agent."""

import json
import signal

import pytest

SOURCE = """
import json, os, pathlib, time
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

NOTES = pathlib.Path({notes!r})

def tell(context):
    note = {{"dag_id": context["dag"].dag_id, "run_id": context["run_id"], "reason": context["reason"]}}
    with (NOTES / "dag").open("a") as file:
        file.write(json.dumps(note) + chr(10))

def tell_of_task(context):
    ti = context["ti"]
    said = {{
        "task_id": ti.task_id,
        "pulled": ti.xcom_pull(task_ids="first", key="value"),
        "states": ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]),
    }}
    with (NOTES / "task").open("a") as file:
        file.write(json.dumps(said) + chr(10))

def hang_once(context):
    with (NOTES / "hung").open("a") as file:
        file.write(str(os.getpid()) + chr(10))
    if len((NOTES / "hung").read_text().split()) == 1:
        time.sleep(3600)

with DAG({dag!r}, schedule=None, on_failure_callback=tell):
    EmptyOperator(task_id="first") >> EmptyOperator(task_id="second", on_failure_callback=tell_of_task)

with DAG({dag!r} + "-hangs", schedule=None, on_failure_callback=hang_once):
    EmptyOperator(task_id="task")
"""

ASK_FOR_A_DAG_CALLBACK = """
import sys
from airflow.callbacks.callback_requests import DagCallbackRequest
from airflow.models.db_callback_request import DbCallbackRequest
from airflow.utils.session import create_session

dag_id, bundle, path = sys.argv[1:]
request = DagCallbackRequest(
    filepath=path, bundle_name=bundle, bundle_version=None, msg="it failed",
    dag_id=dag_id, run_id="run", is_failure_callback=True,
)
with create_session() as session:
    session.add(DbCallbackRequest(callback=request, priority_weight=1))
"""

ASK_FOR_A_TASK_CALLBACK = """
import sys
import pendulum
from airflow.callbacks.callback_requests import TaskCallbackRequest
from airflow.models.db_callback_request import DbCallbackRequest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType

dag_id, bundle, path = sys.argv[1:]
with create_session() as session:
    dag = SerializedDagModel.get_dag(dag_id, session=session)
    run = dag.create_dagrun(
        run_id="run", logical_date=None, run_after=pendulum.now("UTC"), run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST, state="running", session=session,
    )
    tis = {ti.task_id: ti for ti in run.get_task_instances(session=session)}
    tis["first"].state, tis["second"].state = "success", "failed"
    session.flush()
    XComModel.set(
        key="value", value=41, dag_id=dag_id, run_id="run", task_id="first", serialize=False, session=session
    )
    request = TaskCallbackRequest(
        filepath=path, bundle_name=bundle, bundle_version=None, msg="killed", ti=tis["second"],
        task_callback_type="failed",
    )
    session.add(DbCallbackRequest(callback=request, priority_weight=1))
"""


@pytest.fixture
def dags(folder, tmp_path, bundle):
    """A folder with the Dags above, and what their callbacks wrote."""
    (folder / "dags.py").write_text(SOURCE.format(notes=str(tmp_path), dag=f"{bundle}-one"))

    def notes(name):
        path = tmp_path / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return notes


@pytest.fixture
def waiting(database, bundle):
    return lambda: database.rows("SELECT id FROM callback WHERE bundle_name = %s", bundle)


def test_a_dag_callback_runs_once_and_is_done(
    start, dags, folder, bundle, database, local_bundle, in_airflow, eventually, waiting
):
    start([local_bundle(bundle, folder)])
    eventually(lambda: database.is_active(f"{bundle}-one"))
    in_airflow(ASK_FOR_A_DAG_CALLBACK, f"{bundle}-one", bundle, "dags.py")
    eventually(lambda: not waiting())
    assert dags("dag") == [{"dag_id": f"{bundle}-one", "run_id": "run", "reason": "it failed"}]


@pytest.mark.usefixtures("execution_api")
def test_a_task_callback_may_look_at_its_run(
    start, dags, folder, bundle, database, local_bundle, in_airflow, eventually, waiting
):
    processor = start([local_bundle(bundle, folder)])
    eventually(lambda: database.is_active(f"{bundle}-one"))
    in_airflow(ASK_FOR_A_TASK_CALLBACK, f"{bundle}-one", bundle, "dags.py")
    eventually(lambda: not waiting())
    log = "".join(path.read_text() for path in (processor.data_dir / "data" / "logs").rglob("dags.py.log"))
    (said,) = dags("task") or [log]
    assert said == {
        "task_id": "second",
        "pulled": 41,
        "states": {"run": {"first": "success", "second": "failed"}},
    }


def test_a_callback_that_was_running_when_its_agent_was_lost_runs_again(
    start, dags, folder, tmp_path, bundle, database, local_bundle, in_airflow, eventually, waiting
):
    first = start([local_bundle(bundle, folder)])
    eventually(lambda: database.is_active(f"{bundle}-one-hangs"))
    in_airflow(ASK_FOR_A_DAG_CALLBACK, f"{bundle}-one-hangs", bundle, "dags.py")
    eventually((tmp_path / "hung").exists)
    assert len(waiting()) == 1
    first.process.signal(signal.SIGKILL)
    start([local_bundle(bundle, folder)])
    eventually(lambda: not waiting())
    assert len((tmp_path / "hung").read_text().split()) == 2
    assert dags("dag") == []


def test_a_callback_that_cannot_be_run_is_dropped(
    start, dags, folder, bundle, database, local_bundle, in_airflow, eventually, waiting
):
    start([local_bundle(bundle, folder)])
    eventually(lambda: database.is_active(f"{bundle}-one"))
    in_airflow(ASK_FOR_A_DAG_CALLBACK, f"{bundle}-one", bundle, "no_such_file.py")
    in_airflow(ASK_FOR_A_DAG_CALLBACK, f"{bundle}-no-such-dag", bundle, "dags.py")
    eventually(lambda: not waiting())
    assert dags("dag") == []
