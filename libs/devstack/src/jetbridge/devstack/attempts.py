"""What happened in a run: one row per task attempt, with what the plane's database keeps of its XCom."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from jetbridge.devstack.rest import AirflowClient, Json

RETURN_VALUE = "return_value"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of one task instance. Times are None for what did not happen."""

    task_id: str
    map_index: int
    try_number: int
    agent: str
    queue: str
    state: str
    queued_to_started_seconds: float | None
    duration_seconds: float | None
    xcom: str = ""

    @property
    def label(self) -> str:
        """Return the task with its map index, as Airflow's UI names it."""
        return self.task_id if self.map_index < 0 else f"{self.task_id} [{self.map_index}]"


def of_run(client: AirflowClient, database_url: str, dag_id: str, run_id: str) -> list[Attempt]:
    """Return every attempt of a run in the order of their starts."""
    stored = xcom_rows(database_url, dag_id, run_id)
    found: list[tuple[str, Attempt]] = []
    for instance in client.task_instances(dag_id, run_id):
        tries = client.tries(instance)
        for one in tries:
            value = stored.get((one["task_id"], one["map_index"])) if one is tries[-1] else None
            found.append((one["start_date"] or "", _attempt(one, value)))
    return [attempt for _, attempt in sorted(found, key=lambda pair: pair[0])]


def xcom_rows(database_url: str, dag_id: str, run_id: str) -> dict[tuple[str, int], Any]:
    """Return the stored return values by (task, map index), straight from the metadata database."""
    query = "SELECT task_id, map_index, value FROM xcom WHERE dag_id = %s AND run_id = %s AND key = %s"
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(query, (dag_id, run_id, RETURN_VALUE)).fetchall()
    return {(task_id, map_index): value for task_id, map_index, value in rows}


def stored_uri(value: Any) -> str:
    """Return where an XCom lies by the reference the plane keeps, or the value itself if it is none."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if isinstance(value, dict) and "uri" in value:
        packed = "" if value.get("encoding", "identity") == "identity" else f" {value['encoding']}"
        return f"{value['uri']} ({value['bytes']:,} bytes{packed})"
    return f"in the database: {value!r}"


def _attempt(one: Json, value: Any) -> Attempt:
    return Attempt(
        task_id=one["task_id"],
        map_index=one["map_index"],
        try_number=one["try_number"],
        agent=one["hostname"] or "",
        queue=one["queue"] or "",
        state=one["state"] or "",
        queued_to_started_seconds=_seconds(one["queued_when"], one["start_date"]),
        duration_seconds=one["duration"],
        xcom=stored_uri(value),
    )


def _seconds(start: str | None, end: str | None) -> float | None:
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
