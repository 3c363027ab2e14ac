"""
Airflow's configuration in the fork server, as environment variables, each with its reason.

Imports no Airflow: the agent computes this before anything of Airflow runs.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from jetbridge.agent.airflow_tls import tls_environment
from jetbridge.worker.identity import AGENT_NAME_VARIABLE
from jetbridge.xcom.settings import ObjectStoreSettings, state_store

AGENT_PREFIX = "JETBRIDGE_AGENT_"
SITE_KEY_VARIABLE = "JETBRIDGE_SITE_KEY_FILE"
"""Where a task's supervisor finds the site's key."""

NO_DATABASE = "sqlite:////nonexistent/workers-have-no-metadata-database"
"""
A database that can be configured, as importing Airflow demands, and never opened: its directory cannot
exist. (An unknown URL scheme would be plainer, but SQLAlchemy refuses it during the import.)
"""


def airflow_env(  # noqa: PLR0913 - each ends up in a variable
    inherited: Mapping[str, str],
    *,
    agent_name: str,
    gateway: str,
    ca_file: Path | None,
    data_dir: Path,
    client_cert: tuple[Path, Path] | None = None,
    site_key_file: Path | None = None,
) -> dict[str, str]:
    """
    Return the whole environment of the fork server and so of every task.

    What the operator set in ``inherited`` wins over our defaults, and loses where a different value
    would break the worker or the boundary. (Airflow prefers the environment to ``airflow.cfg``, so what
    has a default here is not taken from there.)
    """
    kept = {name: value for name, value in inherited.items() if not _is_dropped(name)}
    tls = tls_environment(ca_file, client_cert)
    site_key = {SITE_KEY_VARIABLE: str(site_key_file)} if site_key_file else {}
    return {
        **_defaults(data_dir, ca_file),
        **state_store(inherited),
        **kept,
        **_fixed(agent_name, gateway),
        **tls,
        **site_key,
    }


def execution_api(gateway: str) -> str:
    """Return the address under which the gateway serves Airflow's Execution API."""
    return f"{gateway.rstrip('/')}/execution/"


def log_store(env: Mapping[str, str]) -> str:
    """
    Return where the fork server with this environment leaves its logs, for people on the plane.

    Raises :class:`jetbridge.xcom.errors.ObjectStoreSettingsError` when logs or XCom values are to go to
    our object store and its settings are missing or wrong: better now than in each task.
    """
    xcom, logs = "AIRFLOW__CORE__XCOM_BACKEND", "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"
    if any(env[option].startswith("jetbridge.xcom.") for option in (xcom, logs)):
        store = ObjectStoreSettings.load()
        if env[logs].startswith("jetbridge.xcom."):
            return f"{store.endpoint_url}/{store.logs_bucket}/{store.key_prefix}"
    return f"{socket.gethostname()}:{env['AIRFLOW__LOGGING__BASE_LOG_FOLDER']}"


def _is_dropped(name: str) -> bool:
    # The agent's own settings (where its token is) are no business of a task, and no inherited spelling
    # of the database's address (…_CMD, …_SECRET, …_ASYNC, the old [core] section) may outlive NO_DATABASE.
    return (
        name.startswith(AGENT_PREFIX)
        or name == SITE_KEY_VARIABLE
        or "SQL_ALCHEMY_CONN" in name
        # "server" would make Airflow look for connections in the metadata database.
        or name == "_AIRFLOW_PROCESS_CONTEXT"
    )


def _defaults(data_dir: Path, ca_file: Path | None) -> dict[str, str]:
    defaults = {
        # Not ~/airflow, where another Airflow on this machine may keep its configuration.
        "AIRFLOW_HOME": str(data_dir / "airflow"),
        # Not below /tmp, where another agent's clone of a repository of the same bundle name may lie.
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(data_dir / "bundles"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(data_dir / "logs"),
        # Logs go to the site's object store when a task ends; the plane never sees them. Not with
        # REMOTE_LOGGING, which makes Airflow's own settings module demand a store that it knows.
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "jetbridge.xcom.logging_config.LOGGING_CONFIG",
        # XCom values stay in the execution plane; the plane gets a reference.
        "AIRFLOW__CORE__XCOM_BACKEND": "jetbridge.xcom.backend.ObjectStoreXComBackend",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Across a WAN and two proxies, Airflow's 5 s is a busy minute's normal answer time.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "15",
        # One call survives an outage of at least 59 s, on average 170 s: 60 attempts, waits between 1 s
        # and 5 s. Short waits, because after a restart of the gateway a task should go on at once.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "60",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MIN": "1",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
        # A collector that does not answer holds up the end of a task no longer than this, in seconds;
        # OpenTelemetry's 10 would be 20, since task and supervisor each send what they recorded.
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        # Airflow kills a task after this many failed heartbeats, 5 s apart. 24 x 5 s = 2 min even when
        # each failure is an immediate answer; when nothing answers, each takes as long as the retries.
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "24",
    }
    if ca_file is not None:
        # Whoever names a CA trusts that one, not also every public one (and saves reading them).
        defaults["AIRFLOW__API__CLIENT_USE_PUBLIC_CERTS"] = "False"
    return defaults


def _fixed(agent_name: str, gateway: str) -> dict[str, str]:
    return {
        AGENT_NAME_VARIABLE: agent_name,
        # ti.hostname names the agent; hosts in an execution plane have names nobody on the plane knows.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "jetbridge.worker.identity.agent_name",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution_api(gateway),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": NO_DATABASE,
        # Airflow's switch would start an exporter in the process that forks; see ``traced``.
        "AIRFLOW__TRACES__OTEL_ON": "False",
    }
