"""Who parsed a Dag and who ran a trigger, as Airflow's REST API and the site's object store tell it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from jetbridge.devstack.orders import client_of
from jetbridge.devstack.rest import AirflowClient, Json
from jetbridge.devstack.servers.s3 import S3Server

LOGS_BUCKET = "jetbridge-logs"
_TRIGGER_LOG = re.compile(r"/task_id=(?P<task>[^/]+)/(?:.*/)?attempt=\d+\.log\.trigger\.(?P<job>\d+)\.")


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One deferral of a task: the agent whose triggerer ran the trigger, and where the trigger's log lies."""

    task_id: str
    triggerer: str
    log_uri: str


def parsers(client: AirflowClient) -> list[str]:
    """Return the Dag processors that Airflow takes for alive; agents go by their names."""
    return sorted(
        job["hostname"] for job in client.get("jobs", job_type="DagProcessorJob", is_alive=True)["jobs"]
    )


def commit_of(client: AirflowClient, dag_id: str) -> str:
    """Return the commit at which a Dag was parsed last."""
    versions = client.get(f"dags/{dag_id}/dagVersions")["dag_versions"]
    newest: Json = max(versions, key=lambda one: int(one["version_number"]))
    return str(newest["bundle_version"])


def waits_of_run(client: AirflowClient, store: S3Server, dag_id: str, run_id: str) -> list[Wait]:
    """Return what triggerers did for a run, by the logs their triggers left in the site's store."""
    hosts = {job["id"]: job["hostname"] for job in client.get("jobs", job_type="TriggererJob")["jobs"]}
    prefix = f"dag_id={dag_id}/run_id={run_id}/"
    found = []
    for entry in client_of(store).list_objects(LOGS_BUCKET, prefix, recursive=True):
        key = str(entry.object_name)
        if match := _TRIGGER_LOG.search(unquote(key)):
            host = hosts.get(int(match["job"]), f"job {match['job']}")
            found.append(Wait(task_id=match["task"], triggerer=host, log_uri=f"s3://{LOGS_BUCKET}/{key}"))
    return found
