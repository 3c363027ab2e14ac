"""
Airflow's configuration in the manager's process, as environment variables, each with its reason.

Imports no Airflow: the agent computes this before anything of Airflow runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from jetbridge.agent.settings import ENV_PREFIX
from jetbridge.dag_processor.settings import DagProcessorSettings

NO_DATABASE = "sqlite:////nonexistent/dag-processors-have-no-metadata-database"
"""Can be configured, as importing Airflow demands, and never opened: its directory cannot exist."""


def airflow_env(inherited: Mapping[str, str], settings: DagProcessorSettings) -> dict[str, str]:
    """
    Return the whole environment of the manager and its parsers.

    What the operator set in ``inherited`` wins over our defaults, and loses where a different value
    would break the Dag processor or the boundary.
    """
    kept = {name: value for name, value in inherited.items() if not _is_dropped(name)}
    return {**_defaults(settings), **kept, **_fixed(settings)}


def _is_dropped(name: str) -> bool:
    return (
        # The agent's own settings (where its token is) are no business of a Dag's code, and no inherited
        # spelling of what is fixed below (…_CMD, …_SECRET, …_ASYNC) may outlive it.
        name.startswith((ENV_PREFIX, "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"))
        or "SQL_ALCHEMY_CONN" in name
        # "server" would make Airflow look for connections in the metadata database.
        or name == "_AIRFLOW_PROCESS_CONTEXT"
    )


def _defaults(settings: DagProcessorSettings) -> dict[str, str]:
    logs = settings.data_dir / "logs"
    return {
        # Not ~/airflow, where another Airflow on this machine may keep its configuration.
        "AIRFLOW_HOME": str(settings.data_dir / "airflow"),
        # Not below /tmp, where another agent's clone of a repository of the same bundle name may lie.
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(settings.data_dir / "bundles"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "dag-processor"),
        "AIRFLOW__LOGGING__JSON_LOGS": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Airflow serializes this path with each Dag. By default it is below AIRFLOW_HOME, so that every Dag
        # would become a new version when another agent takes a bundle over.
        "AIRFLOW__CORE__DAGS_FOLDER": "/nonexistent/dags",
        # For the same reason: Airflow serializes some sets in the order they happen to have.
        "PYTHONHASHSEED": "0",
        # The statistics table is for a terminal that somebody watches.
        "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
        # A callback that asks Airflow something holds up the manager's loop for as long as that is tried.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "15",
    }


def _fixed(settings: DagProcessorSettings) -> dict[str, str]:
    return {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": NO_DATABASE,
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": settings.bundles.read_text(),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": str(settings.parsing_processes),
        # Airflow would read each Dag file in the manager to import what it imports. The manager has to
        # survive every Dag file, so it does not even open one; what most Dags import is imported anyway.
        "AIRFLOW__DAG_PROCESSOR__PARSING_PRE_IMPORT_MODULES": "False",
        # Airflow's switch would start an exporter in the manager, which forks; the agent traces each parse.
        "AIRFLOW__TRACES__OTEL_ON": "False",
        # Which team a bundle belongs to is known, and decided, on the plane.
        "AIRFLOW__CORE__MULTI_TEAM": "False",
    }
