"""
Airflow's configuration in a triggerer, as environment variables, each with its reason.

Imports no Airflow, which reads its configuration once, when it is imported.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from secrets import token_bytes

from jetbridge.agent.airflow_tls import tls_environment
from jetbridge.agent.settings import ENV_PREFIX
from jetbridge.xcom.settings import state_store

NO_DATABASE = "sqlite:////nonexistent/triggerers-have-no-metadata-database"
"""Can be configured, as importing Airflow demands, and never opened: its directory cannot exist."""


def airflow_env(
    inherited: Mapping[str, str],
    *,
    gateway: str,
    ca_file: Path | None,
    data_dir: Path,
    client_cert: tuple[Path, Path] | None = None,
) -> dict[str, str]:
    """
    Return the whole environment of the supervisor and its runner.

    What the operator set in ``inherited`` wins over our defaults, and loses where a different value
    would break the triggerer or the boundary.
    """
    kept = {name: value for name, value in inherited.items() if not _is_dropped(name)}
    tls = tls_environment(ca_file, client_cert)
    return {
        **_defaults(data_dir, ca_file),
        **state_store(inherited),
        **kept,
        **_fixed(gateway),
        **tls,
    }


def execution_api(gateway: str) -> str:
    """Return the address under which the gateway serves Airflow's Execution API."""
    return f"{gateway.rstrip('/')}/execution/"


def _is_dropped(name: str) -> bool:
    return (
        # The agent's own settings (where its token is) are no business of a trigger.
        name.startswith(ENV_PREFIX)
        # No inherited spelling of the database's address (…_CMD, …_SECRET, …_ASYNC) may outlive NO_DATABASE,
        # nor one of the plane's key the key made here.
        or "SQL_ALCHEMY_CONN" in name
        or "FERNET_KEY" in name
        # "server" would make Airflow look for connections in the metadata database.
        or name == "_AIRFLOW_PROCESS_CONTEXT"
    )


def _defaults(data_dir: Path, ca_file: Path | None) -> dict[str, str]:
    defaults = {
        # Not ~/airflow, where another Airflow on this machine may keep its configuration.
        "AIRFLOW_HOME": str(data_dir / "airflow"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(data_dir / "logs"),
        "AIRFLOW__LOGGING__JSON_LOGS": "True",
        # Logs go to the site's object store when a trigger ends; the plane never sees them.
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "jetbridge.xcom.logging_config.LOGGING_CONFIG",
        # XCom values stay in the execution plane; the plane gets a reference.
        "AIRFLOW__CORE__XCOM_BACKEND": "jetbridge.xcom.backend.ObjectStoreXComBackend",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # As a worker's: one call survives an outage of at least 59 s, on average 170 s.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "15",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "60",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MIN": "1",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    }
    if ca_file is not None:
        # Whoever names a CA trusts that one, not also every public one.
        defaults["AIRFLOW__API__CLIENT_USE_PUBLIC_CERTS"] = "False"
    return defaults


def _fixed(gateway: str) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution_api(gateway),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": NO_DATABASE,
        # Airflow's switch would start an exporter before the runner is forked; the runner has its own.
        "AIRFLOW__TRACES__OTEL_ON": "False",
        # Arguments of triggers are encrypted between this process and its runner, with a key of their own.
        "AIRFLOW__CORE__FERNET_KEY": urlsafe_b64encode(token_bytes(32)).decode(),
    }
