"""XCom values of an event that ends its task. For Airflow 3.3."""

from __future__ import annotations

from typing import Any

from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time.xcom import XCom


def store_xcoms(client: Client, ti: TaskInstanceDTO | None, event: Any) -> None:
    """
    Write the values as the task itself would, through the site's XCom backend, and take them off the event.

    Airflow has its triggerer write them into the metadata database, past the backend.
    """
    xcoms, event.xcoms = event.xcoms, None
    if ti is None:
        return
    for key, value in xcoms.items():
        stored = XCom.serialize_value(
            value, key=key, dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index
        )
        client.xcoms.set(ti.dag_id, ti.run_id, ti.task_id, key, stored, ti.map_index)
