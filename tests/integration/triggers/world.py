"""Airflow's own part in the tests of triggers: a database, Dags, runs, deferred task instances."""

import asyncio
import uuid
from contextlib import contextmanager
from datetime import timedelta

import pendulum
from airflow import settings
from airflow._shared.timezones import timezone
from airflow.configuration import conf
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.jobs.job import Job
from airflow.models.asset import AssetEvent, AssetModel, AssetWatcherModel
from airflow.models.callback import Callback
from airflow.models.crypto import get_fernet
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.trigger import Trigger, _decode_next_kwargs
from airflow.models.xcom import XComModel
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher
from airflow.sdk.serde import deserialize
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import delete, select, update

from jetbridge.bus.connection import open_bus
from jetbridge.bus.keys import TRIGGER_DATA_KEY, shared_key
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.masking import is_sealed
from jetbridge.sealing.carried import Carried, Task, open_
from jetbridge.sealing.keyring import KEY_BYTES, Keyring


@contextmanager
def airflow_points_at(url, fernet_key):
    """Have the Airflow in this process, which other tests may have imported before, use a database."""

    before = {
        ("database", "sql_alchemy_conn"): conf.get("database", "sql_alchemy_conn"),
        ("core", "fernet_key"): conf.get("core", "fernet_key"),
    }

    def use(values):
        for (section, option), value in values.items():
            conf.set(section, option, value)
        get_fernet.cache_clear()
        settings.dispose_orm(do_log=False)
        settings.configure_vars()
        settings.configure_orm()

    use({("database", "sql_alchemy_conn"): url, ("core", "fernet_key"): fernet_key})
    yield
    use(before)


async def planes_keys(nats_url):
    """The keys with which the plane seals what its tasks carry over."""
    async with open_bus(BusSettings(url=nats_url), "tests") as bus:
        return Keyring([(await shared_key(bus, TRIGGER_DATA_KEY))[:KEY_BYTES]])


class World:
    """Airflow's own part: Dags, runs, deferred task instances."""

    nats_url = ""

    def __init__(self):
        self.dag_id = f"dag-{uuid.uuid4().hex[:8]}"
        self.sync_dag()

    def sync_dag(self, *operators, dag_id=None, schedule=None):
        """Have the plane know a Dag, as a Dag processor does; ``operators`` are made in it."""

        dag_id = dag_id or self.dag_id
        with DAG(dag_id, start_date=pendulum.datetime(2026, 1, 1), schedule=schedule) as dag:
            for make in operators or (lambda: EmptyOperator(task_id="task"),):
                make()
        dag.relative_fileloc = f"{dag_id}.py"
        with create_session() as session:
            session.merge(DagBundleModel(name="dags"))
            session.flush()
            update_dag_parsing_results_in_db(
                "dags", None, [LazyDeserializedDAG.from_dag(dag)], {}, None, set(), session
            )

    def run(self, session, dag_id=None):
        """Make a run and return it."""

        dag = SerializedDagModel.get_dag(dag_id or self.dag_id, session=session)
        return dag.create_dagrun(
            run_id=f"run-{uuid.uuid4().hex[:8]}",
            logical_date=None,
            run_after=pendulum.now("UTC"),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state="running",
            session=session,
        )

    def task_instance(self, dag_id=None):
        """A task instance of a new run; returns its id."""

        with create_session() as session:
            return str(self.run(session, dag_id).get_task_instances(session=session)[0].id)

    def schedule(self, dag_id):
        """Schedule the task of a new run as the scheduler does; some start from their trigger."""

        with create_session() as session:
            run = self.run(session, dag_id)
            run.dag = SerializedDagModel.get_dag(dag_id, session=session)
            ti = run.get_task_instances(session=session)[0]
            ti.task = run.dag.get_task(ti.task_id)
            run.schedule_tis([ti], session=session)
            return str(ti.id)

    def defer(self, trigger, *, queue=None, timeout=None, ti_id=None):
        """Defer a task instance of a new run to a trigger, as the Execution API does; return both ids."""

        ti_id = ti_id or self.task_instance()
        with create_session() as session:
            row = Trigger.from_object(trigger)
            row.queue = queue
            session.add(row)
            session.flush()
            ti = session.get(TaskInstance, uuid.UUID(ti_id))
            ti.state = TaskInstanceState.DEFERRED
            ti.trigger_id = row.id
            ti.try_number = 1
            ti.next_method = "execute_complete"
            ti.next_kwargs = {}
            ti.start_date = timezone.utcnow()
            if timeout is not None:
                ti.trigger_timeout = timezone.utcnow() + timedelta(seconds=timeout)
            return ti_id, row.id

    def ti(self, ti_id):

        with create_session() as session:
            return session.get(TaskInstance, uuid.UUID(ti_id))

    def state(self, ti_id):
        return self.ti(ti_id).state

    def event(self, ti_id):
        """What the task would be resumed with; opened, if it is stored sealed."""

        ti = self.ti(ti_id)
        event = _decode_next_kwargs(ti.next_kwargs)["event"]
        if not is_sealed(event):
            return event
        task = Task(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
        return deserialize(open_(asyncio.run(planes_keys(self.nats_url)), task, Carried.EVENT, event))

    def failure(self, ti_id):
        """With what the task would be resumed only to fail."""
        ti = self.ti(ti_id)
        return "".join(ti.next_kwargs["traceback"] or []) if ti.next_method == "__fail__" else None

    def watch(self, name, trigger):
        """Have an asset watched by a trigger, as a Dag that is scheduled by it does."""

        watcher = AssetWatcher(name=f"watcher-of-{name}", trigger=trigger)
        asset = Asset(name=name, uri=f"test://{name}", watchers=[watcher])
        dag_id = f"consumer-of-{name}"
        self.sync_dag(dag_id=dag_id, schedule=[asset])
        with create_session() as session:  # assets of paused Dags are not watched
            session.execute(update(DagModel).where(DagModel.dag_id == dag_id).values(is_paused=False))
        self.sync_dag(dag_id=dag_id, schedule=[asset])

    def asset_events(self, name):
        """The payloads of an asset's events, oldest first."""

        query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        with create_session() as session:
            rows = session.scalars(query.where(AssetModel.name == name).order_by(AssetEvent.id))
            return [extra["payload"] for extra in rows]

    def xcom(self, ti_id, key="return_value"):
        """What the plane keeps of an XCom."""

        ti = self.ti(ti_id)
        query = select(XComModel.value).where(
            XComModel.run_id == ti.run_id, XComModel.dag_id == ti.dag_id, XComModel.key == key
        )
        with create_session() as session:
            return session.scalar(query)

    def set_xcom(self, ti_id, key, value):

        ti = self.ti(ti_id)
        with create_session() as session:
            XComModel.set(
                key=key,
                value=value,
                dag_id=ti.dag_id,
                run_id=ti.run_id,
                task_id=ti.task_id,
                serialize=False,
                session=session,
            )

    def trigger_exists(self, trigger_id):

        with create_session() as session:
            return session.get(Trigger, trigger_id) is not None

    def clear(self, ti_id):
        """Clear a task instance as the UI does; it is scheduled again under a new id, which is returned."""

        with create_session() as session:
            ti = session.get(TaskInstance, uuid.UUID(ti_id))
            clear_task_instances([ti], session)
            ti.state = "scheduled"  # what the scheduler does next
            return str(ti.id)

    def set_state(self, ti_id, state):

        with create_session() as session:
            session.get(TaskInstance, uuid.UUID(ti_id)).state = state

    def holder(self, trigger_id):
        """The number of the triggerer that holds a trigger."""

        with create_session() as session:
            row = session.get(Trigger, trigger_id)
            return row.triggerer_id if row else None

    def agent_of(self, trigger_id):
        """The name of the agent that holds a trigger."""
        job = self.job(self.holder(trigger_id))
        return job.hostname if job else None

    def job_of(self, agent):
        """The open triggerer of an agent."""

        with create_session() as session:
            return session.scalar(select(Job).where(Job.hostname == agent, Job.end_date.is_(None)))

    def job(self, number):

        with create_session() as session:
            return session.get(Job, number) if number else None


def forget_triggers():
    """Have nobody wait for any trigger."""

    with create_session() as session:
        session.execute(update(TaskInstance).values(trigger_id=None))
        session.execute(delete(AssetWatcherModel))
        session.execute(delete(Callback))
        session.execute(delete(Trigger))
