"""
Real tasks under Airflow's real supervisor: Dag parsed, process forked, XComs and logs in object storage.

Only the plane is a fake: a dictionary behind the few operations of the Execution API that these tasks
use. So what the plane would store can be looked at, and no database is needed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from minio import Minio

from jetbridge.xcom.settings import ObjectStoreSettings

DAG = """
import datetime

from airflow.sdk import BaseOperator, BaseOperatorLink, dag, task

BIG = "planted-marker-" * 200_000  # about 3 MB


class ReportLink(BaseOperatorLink):
    name = "report"

    def get_link(self, operator, *, ti_key):
        return f"https://reports.example/{ti_key.run_id}"


class Reporting(BaseOperator):
    operator_extra_links = (ReportLink(),)

    def execute(self, context):
        return {"reported": True}


@dag(schedule=None)
def orders():
    @task
    def ingest():
        print("ingesting")
        return {"rows": BIG, "day": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)}

    @task(multiple_outputs=True)
    def split(data):
        assert data["rows"] == BIG and data["day"].year == 2026
        return {"north": (1, 2), "south": {3}}

    @task
    def per_region(region):
        return {"region": region, "amount": len(region)}

    @task
    def reduce(results):
        assert len(results) == 3 and results[1]["region"] == "bb"
        assert [r["region"] for r in results[1:]] == ["bb", "ccc"]
        return sum(r["amount"] for r in results)

    @task
    def expects(total, outputs, north, south):
        assert total == 6, total
        assert (north, south) == ((1, 2), {3}), (north, south)
        assert outputs == {"north": (1, 2), "south": {3}}

    parts = split(ingest())
    total = reduce(per_region.expand(region=["a", "bb", "ccc"]))
    expects(total, parts, parts["north"], parts["south"])
    Reporting(task_id="report")


orders()
"""

RUN = """
import json, sys, uuid
import airflow.dag_processing.dagbag, airflow.sdk.execution_time.task_runner  # once, not in each child
from airflow.executors.workloads.base import BundleInfo
from airflow.sdk.api.datamodels._generated import TaskInstance
from airflow.sdk.execution_time.supervisor import supervise_task

server, *tasks = sys.argv[1:]
for entry in tasks:
    name, _, index = entry.partition("#")
    ti_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{name}#{index or -1}")
    code = supervise_task(
        ti=TaskInstance(id=ti_id, task_id=name, dag_id="orders", run_id="manual__1+2", try_number=1,
                        dag_version_id=uuid.uuid4(), map_index=int(index or -1)),
        bundle_info=BundleInfo(name="local"),
        dag_rel_path="orders.py",
        token="a-token",
        server=server,
        log_path=f"dag_id=orders/task_id={name}/map_index={index or -1}/attempt=1.log",
    )
    if code != 0:
        sys.exit(f"{entry} ended with {code}")
"""


def ti_id(task: str, map_index: int) -> str:
    """Return the id that the script above gives a task instance."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task}#{map_index}"))


class FakePlane(ThreadingHTTPServer):
    """XComs by (task, map index, key), everything ever posted, and the reported states in order."""

    daemon_threads = True

    def __init__(self) -> None:
        self.xcoms: dict[tuple[str, int, str], Any] = {}
        self.states: list[str] = []
        self.unknown: list[str] = []
        self.posted: list[Any] = []
        super().__init__(("127.0.0.1", 0), _PlaneHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/execution/"

    def mapped(self, task: str, key: str) -> list[Any]:
        return [value for (t, _, k), value in sorted(self.xcoms.items()) if (t, k) == (task, key)]


RUN_CONTEXT = {
    "dag_run": {
        "dag_id": "orders",
        "run_id": "manual__1+2",
        "logical_date": "2026-01-01T00:00:00Z",
        "data_interval_start": None,
        "data_interval_end": None,
        "run_after": "2026-01-01T00:00:00Z",
        "start_date": "2026-01-01T00:00:00Z",
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        "partition_key": None,
    },
    "max_tries": 0,
    "should_retry": False,
}


class _PlaneHandler(BaseHTTPRequestHandler):
    server: FakePlane
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = [unquote(part) for part in url.path.removeprefix("/execution/").split("/")]
        if path[0] == "xcoms":
            self.handle_xcom(path, query, body)
        elif path[0] == "task-instances" and path[-1] == "run":
            # As Airflow does, unless a task resumes from a trigger: what an earlier try left is to go.
            keys = [key for task, index, key in self.server.xcoms if ti_id(task, index) == path[1]]
            self.answer(200, {**RUN_CONTEXT, "xcom_keys_to_clear": keys})
        elif path[0] == "task-instances" and path[-1] == "state":
            self.server.states.append(body["state"])
            self.answer(204)
        elif path[0] == "task-instances" and path[-1] in {"heartbeat", "rtif", "rendered-map-index"}:
            self.answer(204)
        else:
            self.server.unknown.append(f"{self.command} {self.path}")
            self.answer(404, {"detail": {"reason": "not_found", "message": "not part of the fake"}})

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 - http.server's names

    def handle_xcom(self, path: list[str], query: dict[str, str], body: Any) -> None:
        _, _, _, task, key, *rest = path
        place = (task, int(query.get("map_index", -1)), key)
        mapped = self.server.mapped(task, key)
        if self.command == "POST":
            self.server.xcoms[place] = body
            self.server.posted.append(body)
            self.answer(201, {"message": "set"})
        elif self.command == "DELETE":
            self.server.xcoms.pop(place, None)
            self.answer(200, {"message": "deleted"})
        elif self.command == "HEAD":
            self.answer(200, headers={"Content-Range": f"map_indexes {len(mapped)}"})
        elif rest[:1] == ["slice"]:
            start, stop, step = (int(query[n]) if n in query else None for n in ("start", "stop", "step"))
            self.answer(200, mapped[start:stop:step])
        elif rest[:1] == ["item"] and int(rest[1]) < len(mapped):
            self.answer(200, mapped[int(rest[1])])
        elif not rest and place in self.server.xcoms:
            self.answer(200, {"key": key, "value": self.server.xcoms[place]})
        else:
            self.answer(404, {"detail": {"reason": "not_found", "message": "no such XCom"}})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def plane() -> Iterator[FakePlane]:
    with FakePlane() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def worker(store_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Return the environment of a worker: Airflow, our two hooks, and the Dag."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "orders.py").write_text(DAG)
    bundle = {
        "name": "local",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(dags)},
    }
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        **store_environment,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        # Airflow's supervisor sometimes sees the end of a process only at its next heartbeat.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__CORE__XCOM_BACKEND": "jetbridge.xcom.backend.ObjectStoreXComBackend",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "jetbridge.xcom.logging_config.LOGGING_CONFIG",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "logs"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
    }


def run(worker: dict[str, str], plane: FakePlane, *tasks: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, plane.url, *tasks],
        env=worker,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    logs = Path(worker["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]).rglob("*.log")
    assert done.returncode == 0, done.stderr[-2000:] + "".join(log.read_text()[-3000:] for log in logs)


def is_reference(value: Any) -> bool:
    return isinstance(value, dict) and value.get("jetbridge.xcom") == 1


@pytest.mark.slow
def test_a_dag_passes_every_kind_of_xcom_through_the_store(
    worker: dict[str, str], plane: FakePlane, raw_client: Minio, store_settings: ObjectStoreSettings
) -> None:
    regions = [f"per_region#{index}" for index in range(3)]
    run(worker, plane, "ingest", "split", *regions, "reduce", "expects", "report")

    assert plane.states == ["success"] * 8
    assert not plane.unknown
    link = plane.xcoms.pop(("report", -1, "_link_ReportLink"))
    assert link == "https://reports.example/manual__1+2"  # the UI reads it without any backend
    assert len(plane.xcoms) == 9  # ingest, split 3, regions 3, reduce, report
    assert all(is_reference(value) for value in plane.xcoms.values())
    assert "planted-marker" not in json.dumps(list(plane.xcoms.values()))

    keys = [item.object_name for item in raw_client.list_objects(store_settings.xcom_bucket, recursive=True)]
    assert len(keys) == 9
    assert any(
        re.fullmatch(r"site-a/orders/manual__1%2B2/per_region/2/return_value\.[0-9a-f]{32}\.json", key or "")
        for key in keys
    )


@pytest.mark.slow
def test_a_retry_purges_its_xcom_and_the_log_reaches_the_store(
    worker: dict[str, str], plane: FakePlane, raw_client: Minio, store_settings: ObjectStoreSettings
) -> None:
    run(worker, plane, "ingest", "ingest")
    first, second = plane.posted
    assert plane.xcoms["ingest", -1, "return_value"] == second

    (left,) = raw_client.list_objects(store_settings.xcom_bucket, recursive=True)
    assert second["uri"] == f"s3://{store_settings.xcom_bucket}/{left.object_name}"
    assert first["uri"] != second["uri"]

    (stored,) = raw_client.list_objects(store_settings.logs_bucket, recursive=True)
    assert stored.object_name is not None
    response = raw_client.get_object(store_settings.logs_bucket, stored.object_name)
    uploaded = response.read().decode()
    response.close()
    relative = stored.object_name.removeprefix("site-a/").rsplit(".", 2)[0]
    local = (Path(worker["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) / relative).read_text()
    assert local.startswith(uploaded)  # Airflow may add a line after the upload
    assert uploaded.count('"ingesting"') == 2  # both executions of this attempt, in one object


@pytest.mark.slow
def test_a_task_whose_store_is_away_fails_with_the_reason_in_its_own_log(
    worker: dict[str, str], plane: FakePlane, unused_address: str
) -> None:
    worker = {
        **worker,
        "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": unused_address,
        "JETBRIDGE_OBJECT_STORE_RETRIES": "0",
    }
    run(worker, plane, "ingest")  # the process ends well, having reported that the task failed
    assert plane.states == ["failed"]
    assert not plane.xcoms
    (log,) = Path(worker["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]).rglob("*.log")
    assert "the object store cannot be reached" in log.read_text()
    assert unused_address in log.read_text()
