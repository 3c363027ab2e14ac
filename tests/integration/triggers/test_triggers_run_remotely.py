"""Triggers of Airflow's database, run by a triggerer agent that has none."""

import json
import uuid
from datetime import timedelta

import pendulum
import pytest
from airflow.models.callback import Callback, TriggererCallback
from airflow.models.hitl import HITLDetail
from airflow.models.variable import Variable
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.providers.standard.triggers.hitl import HITLTrigger
from airflow.providers.standard.triggers.temporal import DateTimeTrigger, TimeDeltaTrigger
from airflow.sdk import AsyncCallback
from airflow.sdk.timezone import utcnow
from airflow.utils.session import create_session
from minio import Minio
from site_triggers import (
    AskingTrigger,
    EndingTrigger,
    FailingTrigger,
    FileTrigger,
    FolderWatcher,
    HugeTrigger,
    NeverMadeTrigger,
    StateWatcher,
)


@pytest.fixture(scope="module")
def triggerer(running_plane):
    site = {"AIRFLOW_CONN_SITE": json.dumps({"conn_type": "generic", "host": "in-the-site"})}
    triggerer = running_plane.start_triggerer(env=site)
    yield triggerer
    triggerer.process.kill()


pytestmark = pytest.mark.usefixtures("triggerer")


def test_a_deferred_task_is_resumed_with_what_its_trigger_fired(world, eventually):
    moment = pendulum.now("UTC").add(seconds=1)
    ti, trigger = world.defer(DateTimeTrigger(moment=moment))
    eventually(lambda: world.state(ti) == "scheduled")
    assert world.event(ti) == moment
    eventually(lambda: not world.trigger_exists(trigger))


def test_a_time_delta_trigger_resumes_its_task(world, eventually):
    ti, _ = world.defer(TimeDeltaTrigger(timedelta(seconds=1)))
    eventually(lambda: world.state(ti) == "scheduled")


def test_a_trigger_that_fails_fails_its_task_with_the_reason(world, eventually):
    ti, _ = world.defer(FailingTrigger("the remote job vanished"))
    eventually(lambda: world.state(ti) == "scheduled")
    assert "ValueError: the remote job vanished" in world.failure(ti)


def test_a_trigger_that_cannot_be_made_fails_alone(world, eventually, tmp_path, triggerer):
    path = tmp_path / "later"
    other, _ = world.defer(FileTrigger(str(path)))
    ti, _ = world.defer(NeverMadeTrigger())
    eventually(lambda: world.state(ti) == "scheduled")
    assert "RuntimeError: no such thing" in world.failure(ti)
    path.write_text("still here")
    eventually(lambda: world.state(other) == "scheduled")
    assert world.event(other) == "still here"
    assert triggerer.process.log_tail(5000).count("triggerer attached") == 1  # the runner lived on


def test_a_trigger_reaches_xcoms_variables_and_its_sites_connections(world, eventually):

    source = world.task_instance()
    world.set_xcom(source, "k", {"answer": 42})
    Variable.set("shared", "from the plane")
    where = world.ti(source)
    ti, _ = world.defer(AskingTrigger(where.dag_id, where.run_id, where.task_id))
    eventually(lambda: world.state(ti) == "scheduled")
    assert world.failure(ti) is None
    assert world.event(ti) == {
        "xcom": {"answer": 42},
        "variables": ["from the plane"] * 3,
        "connection": "in-the-site",
    }


def test_a_task_starts_from_its_trigger_with_its_templates_rendered(world, eventually):
    dag_id = f"from-trigger-{uuid.uuid4().hex[:6]}"
    world.sync_dag(
        lambda: DateTimeSensorAsync(
            task_id="wait", start_from_trigger=True, target_time="{{ dag_run.run_after.isoformat() }}"
        ),
        dag_id=dag_id,
    )
    ti = world.schedule(dag_id)
    assert world.state(ti) == "deferred"
    eventually(lambda: world.state(ti) == "scheduled")
    assert world.failure(ti) is None
    assert world.event(ti) < pendulum.now("UTC")


def test_an_event_that_ends_its_task_leaves_xcom_values_with_the_site(world, eventually):
    ti, _ = world.defer(EndingTrigger())
    eventually(lambda: world.state(ti) == "success")
    kept = world.xcom(ti)
    assert "MARKER-xcom" not in str(kept)
    assert "triggers-xcom" in str(kept)


def test_an_event_that_is_too_large_fails_its_task(world, eventually):
    ti, _ = world.defer(HugeTrigger())
    eventually(lambda: world.state(ti) == "scheduled")
    assert "at most 262144 can be delivered" in world.failure(ti)


@pytest.mark.parametrize("how", ["marked failed", "cleared"])
def test_cancelling_a_task_cancels_its_trigger(world, eventually, tmp_path, how):
    notes = tmp_path / "notes"
    ti, trigger = world.defer(FileTrigger(str(tmp_path / "never"), str(notes)))
    eventually(notes.exists)
    if how == "cleared":
        ti = world.clear(ti)
    else:
        world.set_state(ti, "failed")
    # on_kill takes longer than a second and must not be cut short
    eventually(lambda: "cleanup" in notes.read_text())
    assert [line.split()[0] for line in notes.read_text().splitlines()] == ["run", "on_kill", "cleanup"]
    eventually(lambda: not world.trigger_exists(trigger))
    assert world.failure(ti) is None


def test_a_trigger_that_fired_is_not_killed(world, eventually, tmp_path):
    notes, path = tmp_path / "notes", tmp_path / "there"
    path.write_text("fired")
    ti, trigger = world.defer(FileTrigger(str(path), str(notes)))
    eventually(lambda: world.state(ti) == "scheduled")
    eventually(lambda: not world.trigger_exists(trigger))
    eventually(lambda: "cleanup" in notes.read_text())
    assert "on_kill" not in notes.read_text()


def test_an_asset_watcher_schedules_by_events_each_once(world, eventually, tmp_path):
    name = f"folder-{uuid.uuid4().hex[:6]}"
    world.watch(name, FolderWatcher(str(tmp_path)))
    for number in range(3):
        (tmp_path / f"{number}.csv").touch()
        eventually(lambda expected=number + 1: len(world.asset_events(name)) == expected)
    assert world.asset_events(name) == ["0.csv", "1.csv", "2.csv"]


def test_an_asset_watcher_keeps_state_with_its_asset(world, eventually):
    world.watch("counted", StateWatcher())
    eventually(lambda: world.asset_events("counted"))
    assert world.asset_events("counted") == [1]


def test_a_callback_is_called(world, eventually):  # noqa: ARG001 - a Dag is known

    with create_session() as session:
        callback = Callback.create_from_sdk_def(AsyncCallback("site_triggers.call_back", kwargs={"a": 1}))
        assert isinstance(callback, TriggererCallback)
        session.add(callback)
        session.flush()
        callback.queue(session=session)
        callback_id = callback.id

    def state():
        with create_session() as session:
            found = session.get(Callback, callback_id)
            return found.state, found.output

    eventually(lambda: state()[0] == "success")
    assert state()[1] == "called with ['a']"


def test_a_trigger_waits_for_a_person(world, eventually):

    ti_id = world.task_instance()
    with create_session() as session:
        session.add(
            HITLDetail(
                ti_id=uuid.UUID(ti_id), options=["yes", "no"], subject="Go?", multiple=False, params={}
            )
        )
    trigger = HITLTrigger(
        ti_id=uuid.UUID(ti_id), options=["yes", "no"], params={}, timeout_datetime=None, poke_interval=0.2
    )
    world.defer(trigger, ti_id=ti_id)
    with create_session() as session:
        detail = session.get(HITLDetail, uuid.UUID(ti_id))
        detail.chosen_options, detail.responded_at = ["yes"], utcnow()
        detail.responded_by = {"id": "1", "name": "somebody"}
    eventually(lambda: world.state(ti_id) == "scheduled")
    assert world.failure(ti_id) is None
    assert world.event(ti_id)["chosen_options"] == ["yes"]


def test_the_log_of_a_trigger_is_where_the_log_of_its_task_is(world, eventually, triggerer, s3):

    ti, _ = world.defer(FailingTrigger("planted in a log"))
    eventually(lambda: world.state(ti) == "scheduled")
    number = world.job_of(triggerer.name).id
    where = world.ti(ti)
    relative = f"dag_id={where.dag_id}/run_id={where.run_id}/task_id=task/attempt=1.log.trigger.{number}.log"
    client = Minio(
        s3.endpoint_url.removeprefix("http://"),
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        secure=False,
        region=s3.region,
    )

    def uploaded():
        return [one.object_name for one in client.list_objects("triggers-logs", relative, recursive=True)]

    (name,) = eventually(uploaded)
    text = client.get_object("triggers-logs", name).data.decode()
    assert "planted in a log" in text
    assert text == triggerer.logs()[relative]
