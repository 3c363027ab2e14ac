"""A deferrable sensor from end to end: worker, triggerer, worker again, over HTTPS, with a real scheduler."""

from __future__ import annotations

import pytest

from jetbridge.devstack.orders import client_of

pytestmark = pytest.mark.slow

DAG_ID = "deferred"
RUN_SECONDS = 240


@pytest.fixture(scope="module")
def run(stack, tmp_path_factory):
    stack.client.unpause(DAG_ID)
    directory = tmp_path_factory.mktemp("files")
    run_id = stack.client.trigger(DAG_ID, {"directory": str(directory)})
    stack.client.wait(
        lambda: instances(stack, run_id).get("arrived", {}).get("triggerer_job"),
        "the sensor's trigger to have a triggerer",
        timeout_seconds=120,
    )
    seen = instances(stack, run_id)["arrived"]
    (directory / "arrived").touch()
    stack.await_run(DAG_ID, run_id, timeout_seconds=RUN_SECONDS)
    return run_id, seen


def instances(stack, run_id):
    return {one["task_id"]: one for one in stack.client.task_instances(DAG_ID, run_id)}


def states(stack, run_id):
    return {task: one["state"] for task, one in instances(stack, run_id).items()}


def test_the_tasks_end_as_they_should(stack, run):
    run_id, _ = run
    assert states(stack, run_id) == {
        "prepare": "success",
        "arrived": "success",
        "count": "success",
        "soon": "success",
        "never": "failed",  # its trigger timed out
    }


def test_the_ui_shows_the_agent_as_a_triggerer(run):
    _, seen = run
    assert seen["triggerer_job"]["hostname"] == "waits"
    assert seen["triggerer_job"]["state"] == "running"
    assert seen["trigger"]["classpath"] == "airflow.providers.standard.triggers.file.FileTrigger"


def test_airflow_says_that_its_triggerer_is_healthy(stack):
    assert stack.client.health()["triggerer"]["status"] == "healthy"


def test_the_task_was_resumed_by_the_worker(stack, run):
    run_id, _ = run
    assert instances(stack, run_id)["arrived"]["hostname"] == "works"
    assert instances(stack, run_id)["count"]["hostname"] == "works"


def test_one_attempt_has_its_logs_of_both_agents_in_one_place(stack, run):
    run_id, _ = run
    prefix = f"dag_id={DAG_ID}/run_id={run_id}/task_id=arrived/"
    objects = client_of(stack.s3).list_objects("jetbridge-logs", prefix, recursive=True)
    kinds = {".log.trigger." in one.object_name for one in objects}
    assert kinds == {True, False}
