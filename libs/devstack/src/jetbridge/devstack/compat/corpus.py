"""The example Dags inside Airflow, and what is known of those that cannot be run or compared as they are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from jetbridge.devstack.home import workspace

PACKAGES = {
    "airflow-examples": "airflow.example_dags",
    "standard-examples": "airflow.providers.standard.example_dags",
}
"""Bundles by name: the packages whose Dag files they have."""

PLUGINS = workspace() / "examples" / "plugins"
"""The timetables that some examples need, as an operator installs them on both planes."""

_INTERNET = "calls a server on the internet"
_PIP = "installs packages from the internet into a virtual environment"
_PODS = "is a Dag only where the Kubernetes provider is installed; configures pods of its executor"
NOT_RUN = {
    "example_dag_decorator": _INTERNET,
    "tutorial_objectstorage": _INTERNET,
    "example_retry_policy": _INTERNET,
    "tutorial_taskflow_api_virtualenv": _PIP,
    "example_python_decorator": _PIP,
    "example_python_operator": _PIP,
    "example_branch_operator": _PIP,
    "example_branch_python_operator_decorator": _PIP,
    "example_hitl_operator": "waits for a person to answer; tests/integration/triggers does",
    "example_kubernetes_executor": _PODS,
    "example_local_kubernetes_executor": _PODS,
}
"""Dags that are parsed and compared, but not run: why."""

CONF = {"example_params_ui_tutorial": {"required_field": "something"}}
"""What a person would have to type into the form for a run."""

LEFT_WAITING = {
    "example_sensors": (
        {"timeout_after_second_date_in_the_future_async": "deferred", "print_date_in_bash": None},
        "waits for an hour: its time-out does not reach its trigger, in Airflow either",
    ),
}
"""What is left of a run when all of it has ended that anybody waits for: tasks with their states, and why."""

VOLATILE_FIELDS = {
    "example_sensors": (
        frozenset({"target_time"}),
        "times of day are worked out when the file is parsed",
    ),
}
"""Fields of serialized Dags that differ from parse to parse: which, and why."""


def bundles() -> str:
    """Return the example Dags as the value of ``dag_bundle_config_list``."""
    return json.dumps(
        [
            {
                "name": name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                # Never again: the folders do not change.
                "kwargs": {"path": str(folder_of(package)), "refresh_interval": 3600},
            }
            for name, package in PACKAGES.items()
        ]
    )


def folder_of(package: str) -> Path:
    """Return where a package lies; raises :class:`ModuleNotFoundError` when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        msg = f"{package} is not installed"
        raise ModuleNotFoundError(msg)
    return Path(spec.origin).parent
