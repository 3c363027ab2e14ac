"""What the agent and the bridge rely on in Airflow's Dag file processor. Fails when Airflow changes it."""

import hashlib
import inspect
import re

import pytest
from airflow.callbacks import callback_requests
from airflow.dag_processing import collection, processor
from airflow.dag_processing.manager import DagFileInfo, DagFileProcessorManager
from airflow.models.callback import DagProcessorCallback
from airflow.models.dagcode import DagCode
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk.execution_time import supervisor
from airflow.serialization.serialized_objects import BaseSerialization, LazyDeserializedDAG

from jetbridge.dag_processor.callbacks import _KINDS
from jetbridge.dag_processor.manager import RemoteManager
from jetbridge.dag_processor.parser import _READ_BYTES, LimitedParser
from jetbridge.scheduler.bridge.dag_processing.manager import PlaneManager

HOOKS = {
    "prepare_server_process_context": [],
    "sync_bundles": [],
    "get_all_bundles": [],
    "load_dag_bundles": [],
    "claim_priority_files": [],
    "fetch_callbacks": [],
    "prepare_callback_bundle": ["request"],
    "get_bundle_state": ["bundle_name", "session"],
    "update_bundle_state": ["bundle_name", "last_refreshed", "version", "session"],
    "deactivate_deleted_dags": ["bundle_name", "present"],
    "deactivate_stale_dags": ["last_parsed", "session"],
    "clear_orphaned_import_errors": ["bundle_name", "observed_filelocs", "session"],
    "purge_inactive_dag_warnings": [],
    "handle_parsing_result": ["file", "proc", "session"],
    "persist_parsing_result": [
        "bundle_name",
        "bundle_version",
        "version_data",
        "parsing_result",
        "run_duration",
        "relative_fileloc",
        "session",
    ],
    "purge_removed_files_from_queue": ["present"],
    "terminate_orphan_processes": ["present"],
    "remove_orphaned_file_stats": ["present"],
    "request_bundle_refresh": ["bundle_names"],
    "_refresh_dag_bundles": ["known_files"],
    "_create_process": ["dag_file"],
    "_get_team_names": ["bundle_names"],
    "_get_observed_filelocs": ["present"],
    "_claim_priority_files": ["session"],
    "_render_log_filename": ["dag_file"],
}

REVIEWED = {
    # Whoever changes a digest has read what changed, and changed ours with it.
    DagFileProcessorManager._create_process: "41f1263e050b",
    DagFileProcessorManager._get_logger_for_dag_file: "5c1836a231c2",
    DagFileProcessorManager._add_callback_to_queue: "894a90ee6cff",
    DagFileProcessorManager._fetch_callbacks_from_db: "402e6e8fe1ec",
    DagFileProcessorManager._refresh_dag_bundles: "7ad2d5a0ac6c",
    DagFileProcessorManager._run_parsing_loop: "95ec97abc767",
    DagFileProcessorManager.handle_parsing_result: "deb161b20157",
    DagCode.get_code_from_file: "02ec34795a6f",
    DagCode.write_code: "020735f21a04",
    DagCode.update_source_code: "274f21a6db7c",
    supervisor.make_buffered_socket_reader: "7910f9793ff1",
    processor._parse_file_entrypoint: "6df3c3ad4a07",
}

OF_THE_DATABASE = re.compile(
    r"\bsession\b|create_session|provide_session|Model\.|DagBundleModel|\.get_team_names"
)
WITHOUT_A_DATABASE = {
    # They name a session, and never use one: ours are called instead of what they would call.
    "handle_parsing_result",
}


def digest(function):
    return hashlib.sha256(inspect.getsource(inspect.unwrap(function)).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_there_and_takes_what_it_took(name):
    parameters = inspect.signature(inspect.unwrap(getattr(DagFileProcessorManager, name))).parameters
    assert list(parameters)[1:] == HOOKS[name]


@pytest.mark.parametrize("function", REVIEWED, ids=lambda function: function.__qualname__)
def test_what_was_read_is_what_runs(function):
    assert digest(function) == REVIEWED[function]


def test_everything_in_the_manager_that_touches_the_database_is_overridden():
    touching = {
        name
        for name, function in vars(DagFileProcessorManager).items()
        if inspect.isfunction(inspect.unwrap(function))
        and OF_THE_DATABASE.search(inspect.getsource(inspect.unwrap(function)).partition('"""')[2])
    }
    assert "deactivate_stale_dags" in touching
    overridden = set(vars(RemoteManager))
    private = {"_claim_priority_files", "_fetch_callbacks_from_db"}  # called by overridden hooks alone
    assert touching - overridden - private == set()


def test_the_managers_own_api_server_is_never_made():
    remote = RemoteManager(max_runs=-1, plane=None, limits=None, reporter=None)
    assert remote._api_server is None
    assert PlaneManager.of("one", "two")._api_server is None
    assert [bundle.name for bundle in PlaneManager.of("one", "two")._dag_bundles] == ["one", "two"]


def test_files_are_the_same_by_bundle_path_and_version():
    one = DagFileInfo(rel_path="a.py", bundle_name="b", bundle_path="/somewhere")
    assert one == DagFileInfo(rel_path="a.py", bundle_name="b", bundle_path="/elsewhere")
    assert one != DagFileInfo(rel_path="a.py", bundle_name="b", bundle_version="v")


def test_every_kind_of_callback_request_is_known():
    kinds = callback_requests.CallbackRequest.__origin__.__args__
    assert set(_KINDS) == {kind.__name__ for kind in kinds}
    assert "get_callback_request" in vars(DagProcessorCallback)


def test_a_dag_s_source_is_read_from_its_fileloc_alone():
    write = inspect.getsource(SerializedDagModel.write_dag)
    assert re.findall(r"DagCode\.\w+\((.*)\)", write) == [
        "dag_id=dag.dag_id, fileloc=dag.fileloc, session=session",
        "dag_id=dag.dag_id, fileloc=dag.fileloc, session=session",
        "dagv, dag.fileloc, session=session",
    ]
    body = inspect.getsource(collection)
    uses = [
        line.strip().partition("(")[0] for line in body.splitlines() if re.search(r"\bdag\.fileloc\b", line)
    ]
    assert uses == ["DagCode.update_source_code", "log.exception", "dm.fileloc = dag.fileloc"]
    assert "fileloc" not in vars(LazyDeserializedDAG)


def test_serializations_are_versioned_as_the_bridge_expects():
    assert BaseSerialization.SERIALIZER_VERSION == 3


def test_the_parser_can_be_limited():
    assert (
        inspect.signature(supervisor.make_buffered_socket_reader).parameters["buffer_size"].default
        == _READ_BYTES
    )
    registered = inspect.signature(supervisor.WatchedSubprocess._register_pipe_readers).parameters
    assert list(registered) == ["self", "stdout", "stderr", "requests", "logs", "data"]
    assert "target" in inspect.signature(LimitedParser.start).parameters
