"""
Notices when Airflow changes what the XCom backend and the log store are built on.

A failure here does not mean that something is broken. It means that somebody must read what changed in
Airflow, decide whether ``jetbridge.xcom`` still does the right thing, and move the expectation.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from airflow.sdk import log as sdk_log
from airflow.sdk._shared.logging.remote import RemoteLogIO, RemoteLogStreamIO, discover_remote_log_handler
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time import lazy_sequence, supervisor, task_runner
from airflow.utils.log.file_task_handler import FileTaskHandler

from jetbridge.xcom import logging_config
from jetbridge.xcom.backend import ObjectStoreXComBackend
from jetbridge.xcom.logs import ObjectStoreTaskLog


def parameters(function: Any) -> list[str]:
    return [str(name) for name in inspect.signature(function).parameters]


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (BaseXCom.serialize_value, ["value", "key", "task_id", "dag_id", "run_id", "map_index"]),
        (BaseXCom.deserialize_value, ["result"]),
        (BaseXCom.purge, ["xcom", "args"]),
        (BaseXCom.delete, ["key", "task_id", "dag_id", "run_id", "map_index"]),
        (RemoteLogIO.upload, ["self", "path", "ti"]),
        (RemoteLogIO.read, ["self", "relative_path", "ti"]),
        (RemoteLogStreamIO.stream, ["self", "relative_path", "ti"]),
        (sdk_log.upload_to_remote, ["logger", "ti"]),
        (discover_remote_log_handler, ["logging_class_path", "fallback_path", "import_string"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_the_hooks_have_the_parameters_we_were_written_for(hook: Any, expected: list[str]) -> None:
    assert parameters(hook) == expected


@pytest.mark.parametrize("name", ["serialize_value", "deserialize_value"])
def test_our_hooks_take_what_airflow_passes(name: str) -> None:
    assert parameters(getattr(ObjectStoreXComBackend, name)) == parameters(getattr(BaseXCom, name))
    static = inspect.getattr_static(BaseXCom, name)
    assert isinstance(static, staticmethod), f"BaseXCom.{name} is no staticmethod any more"


@pytest.mark.parametrize("name", ["upload", "read", "stream"])
def test_our_log_store_takes_what_airflow_passes(name: str) -> None:
    ours = [parameter.lstrip("_") for parameter in parameters(getattr(ObjectStoreTaskLog, name))]
    assert ours == parameters(getattr(RemoteLogStreamIO, name))
    assert isinstance(ObjectStoreTaskLog(), RemoteLogStreamIO)


HOOKS_OF_BASE_XCOM = {
    "XCOM_RETURN_KEY",
    "set",
    "aset",
    "_set_xcom_in_db",
    "get_value",
    "aget_value",
    "_get_xcom_db_ref",
    "get_one",
    "aget_one",
    "get_all",
    "aget_all",
    "serialize_value",
    "deserialize_value",
    "purge",
    "delete",
}


def test_base_xcom_has_grown_no_hook_that_we_would_have_to_implement() -> None:
    own = {name for name in vars(BaseXCom) if not name.startswith("__")}
    assert own == HOOKS_OF_BASE_XCOM


@pytest.mark.parametrize(
    ("caller", "calls"),
    [
        (BaseXCom.set, "cls.serialize_value("),
        (BaseXCom.aset, "cls.serialize_value("),
        (BaseXCom.get_one, "cls.deserialize_value("),
        (BaseXCom.aget_one, "cls.deserialize_value("),
        (BaseXCom.get_all, "cls.deserialize_value("),
        (BaseXCom.aget_all, "cls.deserialize_value("),
        (BaseXCom.delete, "cls.purge("),
        (lazy_sequence.LazyXComSequence.__getitem__, "XCom.deserialize_value("),
        # Operator links go past the backend, or the UI could not follow them.
        (task_runner._xcom_push_to_db, "XCom._set_xcom_in_db("),
        # The plane's reader takes ``stream`` where there is one.
        (FileTaskHandler._read_remote_logs, 'getattr(remote_io, "stream"'),
        (supervisor.ActivitySubprocess._upload_logs, "upload_to_remote(self.process_log, self.ti)"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_airflow_still_calls_the_hooks_from_where_we_rely_on_it(caller: Any, calls: str) -> None:
    assert calls in inspect.getsource(caller)


def test_links_bypass_the_backend() -> None:
    assert "serialize_value" not in inspect.getsource(BaseXCom._set_xcom_in_db)


def test_logs_are_uploaded_after_the_state_was_reported() -> None:
    source = inspect.getsource(supervisor.ActivitySubprocess.wait)
    assert source.index("self.update_task_state_if_needed()") < source.index("self._upload_logs()")


def test_log_files_are_appended_to_so_a_first_line_names_the_file() -> None:
    assert 'log_file.open("ab")' in inspect.getsource(supervisor._configure_logging)


def test_the_logging_module_has_what_airflow_looks_for() -> None:
    assert isinstance(logging_config.LOGGING_CONFIG, dict)
    assert isinstance(logging_config.REMOTE_TASK_LOG, ObjectStoreTaskLog)
    source = inspect.getsource(discover_remote_log_handler)
    assert 'getattr(mod, "REMOTE_TASK_LOG", None)' in source
