"""A Dag in the metadata database, written as Airflow's Dag processor does."""

from datetime import UTC, datetime

from airflow.models.dagbundle import DagBundleModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType


def write(dag_id, tasks):
    """Write a Dag; ``tasks`` maps task ids to arguments of their operators."""
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        for task_id, arguments in tasks.items():
            EmptyOperator(task_id=task_id, **arguments)
    lazy = LazyDeserializedDAG.from_dag(dag)
    with create_session() as session:
        session.merge(DagBundleModel(name="dags"))
        session.flush()
        SerializedDAG.bulk_write_to_db("dags", None, [lazy], session=session)
        session.flush()
        SerializedDagModel.write_dag(lazy, bundle_name="dags", session=session)


def run(dag_id, session):
    """Create a run of the Dag, running, and return it."""
    dag = SerializedDagModel.get_dag(dag_id, session=session)
    return dag.create_dagrun(
        run_id="r",
        run_after=datetime.now(UTC),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        session=session,
    )
