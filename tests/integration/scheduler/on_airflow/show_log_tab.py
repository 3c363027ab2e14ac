"""What Airflow's REST API answers for the logs of tasks in several states."""

from pathlib import Path

import one_dag
from airflow.configuration import conf
from airflow.utils.session import create_session

TASKS = {
    "running": ("running", "worker-1"),
    "succeeded": ("success", "worker-1"),
    "retrying": ("up_for_retry", "worker-1"),
    "deferred": ("deferred", "worker-1"),
    "storeless": ("success", "worker-2"),
    "unknown_agent": ("failed", "worker-9"),
    "never_started": ("failed", ""),
    "logged_here": ("success", "this-host"),
}
MEDIA_TYPES = "application/json", "application/x-ndjson"


def write_tasks():
    one_dag.write("logs", {task_id: {} for task_id in TASKS})
    with create_session() as session:
        for ti in one_dag.run("logs", session).task_instances:
            ti.state, ti.hostname = TASKS[ti.task_id]
            ti.try_number = 1
    log = Path(
        conf.get("logging", "base_log_folder"), "dag_id=logs/run_id=r/task_id=logged_here/attempt=1.log"
    )
    log.parent.mkdir(parents=True)
    log.write_text('{"event": "a line of the log on the plane"}\n')


def answers(client, login):
    """Return statuses and texts by media type and task; ``login`` is the header of somebody who may look."""
    write_tasks()
    return {accept: _ask(client, login | {"Accept": accept}) for accept in MEDIA_TYPES}


def _ask(client, headers):
    address = "/api/v2/dags/logs/dagRuns/r/taskInstances/{}/logs/1"
    answers = {task_id: client.get(address.format(task_id), headers=headers) for task_id in TASKS}
    return {task_id: [answer.status_code, answer.text] for task_id, answer in answers.items()}
