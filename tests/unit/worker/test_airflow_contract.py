"""What ``execute``, ``coordinator`` and ``airflow_env`` rely on in Airflow. Fails when Airflow changes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jetbridge.worker.airflow_env import airflow_env

REPORT = """
import importlib, inspect, json, sys
import httpx
from airflow.configuration import conf
from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from airflow.sdk.api import client
from airflow.sdk.execution_time import callback_supervisor, coordinator, supervisor
from jetbridge.worker.execute import PRELOADED_MODULES

def parameters(function):
    return list(inspect.signature(function).parameters)

def tls_context():
    return client.Client._get_ssl_context_cached()

def stays_open():
    given = client.Client(base_url=None, dry_run=True, token="")
    with supervisor._ensure_client("https://plane.test", "", client=given) as used:
        pass
    return used is given and not given.is_closed

def preloads(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True

print(json.dumps({
    "run_workload": parameters(BaseExecutor.run_workload),
    "supervise_task": parameters(supervisor.supervise_task),
    "supervise_callback": parameters(callback_supervisor.supervise_callback),
    "workloads": [kind.__name__ for kind in workloads.ExecutorWorkload.__origin__.__args__],
    "task_fields": sorted(workloads.ExecuteTask.model_fields),
    "callback_fields": sorted(workloads.ExecuteCallback.model_fields),
    "client": parameters(client.Client),
    "calls_go_through_send": client.Client.send is httpx.Client.send and "super().request(" in
        inspect.getsource(client.Client.request),
    "a_client_that_is_given_stays_open": stays_open(),
    "run_workload_gives": [name for name in parameters(supervisor.supervise_task)
        if f"{name}=" in inspect.getsource(BaseExecutor.run_workload).split("supervise_callback")[0]],
    "tls_context_is_cached": tls_context() is tls_context(),
    "execute_task": parameters(coordinator._PythonCoordinator.execute_task),
    "start": parameters(supervisor.ActivitySubprocess.start),
    "service_subprocess": parameters(supervisor.ActivitySubprocess._service_subprocess),
    "child_started": parameters(supervisor.ActivitySubprocess._on_child_started),
    "heartbeat_fields": sorted(one.name for one in supervisor.ActivitySubprocess.__attrs_attrs__
        if one.name.startswith("_last_")),
    "selector_is_a_field": "selector" in parameters(supervisor.ActivitySubprocess),
    "waits_on_the_heartbeat_interval": supervisor.MIN_HEARTBEAT_INTERVAL,
    "missing_preloads": [name for name in PRELOADED_MODULES if not preloads(name)],
    "options": {f"{section}.{option}": conf.get(section, option, fallback=None) for section, option in [
        ("core", "hostname_callable"),
        ("core", "xcom_backend"),
        ("core", "execution_api_server_url"),
        ("logging", "logging_config_class"),
        ("workers", "execution_api_retries"),
        ("workers", "max_failed_heartbeats"),
        ("api", "ssl_ca_file"),
    ]},
    "known_options": {section: sorted(options["options"]) for section, options in
        conf.configuration_description.items() if section in ("api", "core", "logging", "sdk", "workers")},
}))
"""


WAKES_FOR_A_CHILD = """
import os, time
from jetbridge.agent.child_selector import ChildAwareSelector

selector = ChildAwareSelector()
go_on, say = os.pipe()
if os.fork() == 0:
    os.read(go_on, 1)
    time.sleep(0.2)  # most likely into the select; before it would do as well
    os._exit(0)
os.write(say, b"x")
assert selector.select(timeout=3600) == []
assert os.waitpid(-1, os.WNOHANG) != (0, 0)
print("woke with nothing to read")
selector.close()
selector.close()
"""


def in_airflow(code, data_dir):
    """Run code in a process that is configured like the fork server and return what it prints last."""
    env = airflow_env(
        os.environ, agent_name="a1", gateway="https://gw", ca_file=Path("/ca.pem"), data_dir=data_dir
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, check=False, timeout=120
    )
    assert told.returncode == 0, told.stderr.decode()
    return told.stdout.splitlines()[-1].decode()


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """What such a process says about its Airflow."""
    return json.loads(in_airflow(REPORT, tmp_path_factory.mktemp("data")))


def test_a_supervisor_wakes_up_for_the_end_of_its_task(tmp_path):
    assert in_airflow(WAKES_FOR_A_CHILD, tmp_path) == "woke with nothing to read"


def test_how_a_workload_is_run(airflow):
    assert airflow["run_workload"] == [
        "workload", "server", "dry_run", "subprocess_logs_to_stdout", "proctitle",
    ]  # fmt: skip
    assert airflow["workloads"] == ["ExecuteTask", "ExecuteCallback", "TestConnection"]
    assert {"ti", "token", "dag_rel_path", "bundle_info", "log_path"} <= set(airflow["task_fields"])
    assert {"callback", "token", "dag_rel_path", "bundle_info", "log_path"} <= set(airflow["callback_fields"])
    for supervise in ("supervise_task", "supervise_callback"):
        assert {"token", "server", "client", "log_path"} <= set(airflow[supervise])


def test_a_task_is_run_as_airflow_would_but_with_a_client_of_ours(airflow):
    # ``execute`` leaves out what has no other value on a worker.
    given = {"ti", "bundle_info", "dag_rel_path", "token", "server", "log_path", "sentry_integration"}
    assert set(airflow["run_workload_gives"]) == given | {"dry_run", "subprocess_logs_to_stdout"}
    assert set(airflow["supervise_task"]) == set(airflow["run_workload_gives"]) | {"client"}
    assert airflow["calls_go_through_send"]
    assert airflow["a_client_that_is_given_stays_open"]


def test_the_client_that_is_warmed_up(airflow):
    assert {"base_url", "token"} <= set(airflow["client"])
    assert airflow["tls_context_is_cached"]


def test_how_tasks_are_coordinated(airflow):
    # The coordinator passes on whatever it is given, so the two must fit each other.
    given = set(airflow["execute_task"]) - {"self", "kwargs"}
    assert given <= set(airflow["start"]) | {"subprocess_logs_to_stdout"}
    assert airflow["selector_is_a_field"]
    # Called between two waits; a watch over the task's memory hangs on it.
    assert airflow["service_subprocess"] == ["self", "max_wait_time", "raise_on_timeout", "expect_signal"]
    assert airflow["waits_on_the_heartbeat_interval"] > 0
    # The first heartbeat is put off when the start was answered.
    assert airflow["child_started"] == ["self", "ti", "dag_rel_path", "bundle_info", "sentry_integration"]
    assert airflow["heartbeat_fields"] == ["_last_heartbeat_attempt", "_last_successful_heartbeat"]


def test_what_is_preloaded_exists(airflow):
    assert airflow["missing_preloads"] == []


def test_options_have_their_names_and_take_effect(airflow):
    assert airflow["options"] == {
        "core.hostname_callable": "jetbridge.worker.identity.agent_name",
        "core.xcom_backend": "jetbridge.xcom.backend.ObjectStoreXComBackend",
        "core.execution_api_server_url": "https://gw/execution/",
        "logging.logging_config_class": "jetbridge.xcom.logging_config.LOGGING_CONFIG",
        "workers.execution_api_retries": "60",
        "workers.max_failed_heartbeats": "24",
        "api.ssl_ca_file": "/ca.pem",
    }
    known = {section: set(options) for section, options in airflow["known_options"].items()}
    assert {"ssl_ca_file", "client_use_public_certs"} <= known["api"]
    assert {"hostname_callable", "xcom_backend", "execution_api_server_url"} <= known["core"]
    assert {"base_log_folder", "remote_logging", "logging_config_class"} <= known["logging"]
    assert {"coordinators", "queue_to_coordinator"} <= known["sdk"]
    assert {
        "execution_api_retries",
        "execution_api_retry_wait_min",
        "execution_api_retry_wait_max",
        "execution_api_timeout",
        "max_failed_heartbeats",
    } <= known["workers"]


def test_the_agents_process_imports_no_airflow():
    code = "import sys, jetbridge.worker.main; sys.exit('airflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
