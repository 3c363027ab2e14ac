"""Print what Airflow's REST API answers for the logs of tasks in several states, as JSON."""

import json
import sys
from pathlib import Path

import one_dag
from airflow.api_fastapi.app import create_app
from airflow.configuration import conf
from airflow.utils.session import create_session
from starlette.testclient import TestClient

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


def ask(client, accept):
    address = "/api/v2/dags/logs/dagRuns/r/taskInstances/{}/logs/1"
    token = client.get("/auth/token").json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Accept": accept}
    answers = {task_id: client.get(address.format(task_id), headers=headers) for task_id in TASKS}
    return {task_id: [answer.status_code, answer.text] for task_id, answer in answers.items()}


write_tasks()
with TestClient(create_app(apps="all")) as client:
    answers = {accept: ask(client, accept) for accept in ("application/json", "application/x-ndjson")}
Path(sys.argv[1]).write_text(json.dumps(answers))
