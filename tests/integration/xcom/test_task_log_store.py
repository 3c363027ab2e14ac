"""Task logs on a real S3 server, through Airflow's own way of finding and calling the log store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk._shared.logging.remote import discover_remote_log_handler
from airflow.sdk._shared.module_loading import import_string
from minio import Minio
from structlog.testing import capture_logs

from jetbridge.xcom.logs import ObjectStoreTaskLog, logs_store

TI = SimpleNamespace(id=uuid.UUID(int=7))
PATH = "dag_id=orders/run_id=manual__2026-01-01T00:00:00+00:00/task_id=load/attempt=1.log"


@pytest.fixture
def agents(
    store_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], Path]]:
    """Yield a function that moves this process to another agent's disk and returns the log file there."""
    for name, value in store_environment.items():
        monkeypatch.setenv(name, value)
    logs_store.cache_clear()

    def move_to(agent: str) -> Path:
        folder = tmp_path / agent
        monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(folder))
        file = folder / PATH
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    yield move_to
    logs_store.cache_clear()


def append(file: Path, *events: str) -> None:
    with file.open("a") as log:
        log.writelines(f'{{"timestamp": "{file.parts[-5]}", "event": "{event}"}}\n' for event in events)


def events(task_log: ObjectStoreTaskLog) -> list[list[str]]:
    """Return the events of each part, in order."""
    _, streams = task_log.stream(PATH, TI)
    return [[line.split('"')[-2] for line in stream] for stream in streams]


def test_an_attempt_is_one_object_and_stays_on_disk(agents: Callable[[str], Path], raw_client: Minio) -> None:
    file = agents("worker-1")
    append(file, "begun", "é done")
    before = file.read_bytes()
    ObjectStoreTaskLog().upload(PATH, TI)
    assert file.read_bytes() == before
    (stored,) = raw_client.list_objects(logs_store().bucket, recursive=True)
    assert stored.object_name is not None
    assert stored.object_name.startswith(f"site-a/{PATH}.")
    assert stored.object_name.endswith(".log")
    sources, contents = ObjectStoreTaskLog().read(PATH, TI)
    assert sources == [f"s3://{logs_store().bucket}/{stored.object_name}"]
    assert contents == [before.decode().rstrip("\n")]


def test_an_attempt_that_continues_on_the_same_agent_replaces_its_own_object(
    agents: Callable[[str], Path],
) -> None:
    file = agents("worker-1")
    append(file, "begun", "deferred")
    ObjectStoreTaskLog().upload(PATH, TI)
    append(file, "resumed")
    ObjectStoreTaskLog().upload(PATH, TI)
    ObjectStoreTaskLog().upload(PATH, TI)
    assert events(ObjectStoreTaskLog()) == [["begun", "deferred", "resumed"]]


def test_an_attempt_that_continues_on_other_agents_loses_nothing(agents: Callable[[str], Path]) -> None:
    for agent, event in (("worker-1", "begun"), ("worker-2", "resumed"), ("worker-1", "resumed again")):
        append(agents(agent), event)
        ObjectStoreTaskLog().upload(PATH, TI)
    assert sorted(events(ObjectStoreTaskLog())) == [["begun", "resumed again"], ["resumed"]]


def test_an_agent_that_lost_its_disk_does_not_overwrite_what_it_stored_before(
    agents: Callable[[str], Path],
) -> None:
    for event in ("begun", "resumed on an empty disk"):
        file = agents("worker-1")
        file.unlink(missing_ok=True)
        append(file, event)
        ObjectStoreTaskLog().upload(PATH, TI)
    assert sorted(events(ObjectStoreTaskLog())) == [["begun"], ["resumed on an empty disk"]]


def test_another_attempt_is_not_read_with_this_one(agents: Callable[[str], Path]) -> None:
    append(agents("worker-1"), "first")
    ObjectStoreTaskLog().upload(PATH, TI)
    sources, contents = ObjectStoreTaskLog().read(PATH.replace("attempt=1.", "attempt=11."), TI)
    assert contents is None
    assert "No log under" in sources[0]


def test_an_empty_log_makes_no_object(agents: Callable[[str], Path], raw_client: Minio) -> None:
    agents("worker-1").touch()
    ObjectStoreTaskLog().upload(PATH, TI)
    assert not raw_client.bucket_exists(logs_store().bucket)


def test_a_failed_upload_is_logged_and_the_file_stays(
    agents: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, unused_address: str
) -> None:
    file = agents("worker-1")
    append(file, "begun")
    monkeypatch.setenv("JETBRIDGE_OBJECT_STORE_ENDPOINT_URL", unused_address)
    monkeypatch.setenv("JETBRIDGE_OBJECT_STORE_RETRIES", "0")
    with capture_logs() as captured:
        ObjectStoreTaskLog().upload(PATH, TI)
    (entry,) = captured
    assert (entry["log_level"], entry["path"], entry["ti_id"]) == ("error", PATH, str(TI.id))
    assert unused_address in entry["error"]
    assert file.exists()
    sources, contents = ObjectStoreTaskLog().read(PATH, TI)
    assert contents is None
    assert unused_address in sources[0]


@pytest.mark.parametrize(
    ("path", "reason"), [("../../etc/passwd", "subpath"), ("dag_id=none/attempt=1.log", "No such file")]
)
def test_a_path_out_of_the_log_folder_or_to_nothing_is_logged(
    agents: Callable[[str], Path], path: str, reason: str
) -> None:
    agents("worker-1")
    with capture_logs() as captured:
        ObjectStoreTaskLog().upload(path, TI)
    assert reason in captured[0]["error"]


def test_missing_settings_are_logged_by_name(
    agents: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    append(agents("worker-1"), "begun")
    monkeypatch.delenv("JETBRIDGE_OBJECT_STORE_ENDPOINT_URL")
    with capture_logs() as captured:
        ObjectStoreTaskLog().upload(PATH, TI)
    assert "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL" in captured[0]["error"]


def test_an_object_that_goes_away_while_it_is_read_is_said_in_the_log(
    agents: Callable[[str], Path], raw_client: Minio
) -> None:
    append(agents("worker-1"), "begun")
    ObjectStoreTaskLog().upload(PATH, TI)
    _, (stream,) = ObjectStoreTaskLog().stream(PATH, TI)
    (stored,) = raw_client.list_objects(logs_store().bucket, recursive=True)
    assert stored.object_name is not None
    raw_client.remove_object(logs_store().bucket, stored.object_name)
    (line,) = stream
    assert "does not exist" in line


def test_airflow_finds_the_log_store_by_its_configuration() -> None:
    found, connection = discover_remote_log_handler(
        "jetbridge.xcom.logging_config.LOGGING_CONFIG", "unused", import_string
    )
    assert isinstance(found, ObjectStoreTaskLog)
    assert connection is None
