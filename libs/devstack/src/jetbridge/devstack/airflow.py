"""Airflow on the plane: its processes, configured by environment alone."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.home import home
from jetbridge.devstack.probes import answers_http
from jetbridge.devstack.processes import Command, ManagedProcess, Supervisor
from jetbridge.devstack.servers import postgres
from jetbridge.devstack.servers.postgres import PostgresServer
from jetbridge.devstack.tracing import named

DATABASE = "airflow"
BUNDLE = "dags"
_MIGRATE_SECONDS = 240.0
_READY_SECONDS = 120.0
_STOP_SECONDS = 20.0
_API_SERVER_STOP_SECONDS = 2.0
"""It stops serving at once; its interpreter then takes seconds to take itself apart, for nobody's good."""


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True)
class Secrets:
    """Airflow's own secrets, made for one run. They stay on the plane."""

    fernet_key: str = field(default_factory=_fernet_key, repr=False)
    jwt_secret: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    cookie_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def values(self) -> tuple[str, ...]:
        """Return all of them, for tests that search for one where it must not be."""
        return (self.fernet_key, self.jwt_secret, self.cookie_key)


@dataclass(frozen=True, kw_only=True)
class AirflowOptions:
    """
    What differs between a demo, a test and a benchmark.

    ``executor`` is Airflow's setting, ``url`` the api-server's address. ``extra`` are further variables
    for all plane processes. Without ``has_dags`` the plane knows no bundle and runs no Dag processor.
    ``bundles`` is the value of ``dag_bundle_config_list``; without it, it is the folder ``dags``.
    """

    executor: str
    dags: Path
    url: str
    api_workers: int = 1
    has_dags: bool = True
    bundles: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


def bundle_config(dags: Path) -> str:
    """Return the value of ``dag_bundle_config_list`` for one local directory."""
    bundle = {
        "name": BUNDLE,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(dags), "refresh_interval": 5},
    }
    return json.dumps([bundle])


def plane_environment(
    directory: Path, options: AirflowOptions, database_url: str, own: Secrets
) -> dict[str, str]:
    """Return the environment of every Airflow process on the plane."""
    address = urlsplit(options.url)
    return base_environment(
        {
            "AIRFLOW_HOME": str(directory),
            "AIRFLOW__CORE__EXECUTOR": options.executor,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": own.fernet_key,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{options.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # the UI needs no login on this machine
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "256",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
            "AIRFLOW__API__SECRET_KEY": own.cookie_key,
            "AIRFLOW__API__HOST": str(address.hostname),
            "AIRFLOW__API__PORT": str(address.port),
            "AIRFLOW__API__BASE_URL": options.url,
            "AIRFLOW__API__WORKERS": str(options.api_workers),
            "AIRFLOW__API_AUTH__JWT_SECRET": own.jwt_secret,
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": (
                (options.bundles or bundle_config(options.dags)) if options.has_dags else "[]"
            ),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",  # a throw-away instance calls nobody
            **options.extra,
        }
    )


class Airflow:
    """
    The plane's Airflow processes: api-server, scheduler and, unless agents do its work, dag-processor.

    They are added to the supervisor at once and started by :meth:`start`, so that a test can start,
    kill and restart each by its attribute.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        environment: Mapping[str, str],
        *,
        api_server_extra: Mapping[str, str] | None = None,
        has_dags: bool = True,
    ) -> None:
        def add(name: str, extra: Mapping[str, str] | None = None) -> ManagedProcess:
            stop_seconds = _API_SERVER_STOP_SECONDS if name == "api-server" else _STOP_SECONDS
            own = named({**environment, **(extra or {})}, f"airflow-{name}")
            command = airflow_command(own, name, stop_seconds=stop_seconds)
            return supervisor.add(f"airflow-{name}", command, tier="plane")

        self.url = environment["AIRFLOW__API__BASE_URL"]
        self.api_server = add("api-server", api_server_extra)
        self.scheduler = add("scheduler")
        self.dag_processor = add("dag-processor") if has_dags else None

    def start(self) -> None:
        """Start all of them without waiting."""
        for process in (self.api_server, self.scheduler, self.dag_processor):
            if process is not None:
                process.start()

    def wait_ready(self) -> None:
        """
        Wait until the api-server answers on both of its APIs.

        The Execution API is built on its first request, which takes seconds that would otherwise be the
        first task's.
        """
        for path in ("/api/v2/version", "/execution/health"):
            self.api_server.wait_ready(answers_http(f"{self.url}{path}"), timeout_seconds=_READY_SECONDS)


def airflow_command(
    environment: Mapping[str, str], *arguments: str, stop_seconds: float = _STOP_SECONDS
) -> Command:
    """Return ``airflow …`` under this interpreter."""
    argv: list[str | Path] = [Path(sys.executable).parent / "airflow", *arguments]
    return Command(argv=argv, env=environment, stop_seconds=stop_seconds)


def start_database(supervisor: Supervisor) -> tuple[PostgresServer, bool]:
    """
    Start PostgreSQL, from a directory with a migrated Airflow database if one was kept.

    Returns the server and whether its database ``airflow`` is migrated already.
    """
    template = _template()
    if postgres.keeps_data_in_directory() and template.is_dir():
        return postgres.start(supervisor, template=template), True
    return postgres.start(supervisor), False


def migrate(supervisor: Supervisor, server: PostgresServer, environment: Mapping[str, str]) -> None:
    """Bring the database to this Airflow's version and keep a copy of the result for the next start."""
    command = airflow_command(environment, "db", "migrate")
    supervisor.run("airflow-db-migrate", command, timeout_seconds=_MIGRATE_SECONDS)
    if postgres.keeps_data_in_directory():
        server.stop()  # a directory can be copied only while nobody writes to it
        _keep(postgres.directory_of(supervisor))
        server.start()


def _template() -> Path:
    """Return where the migrated directory for this Airflow, these providers and this PostgreSQL is kept."""
    parts = [f"{dist.name}=={dist.version}" for dist in metadata.distributions() if _shapes_schema(dist.name)]
    parts.append(f"postgres=={postgres.version() if postgres.keeps_data_in_directory() else 'elsewhere'}")
    key = hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]
    return home() / "cache" / f"airflow-database-{key}"


def _shapes_schema(distribution: str) -> bool:
    # Providers may bring tables and migrations of their own.
    return distribution.replace("_", "-").startswith("apache-airflow")


def _keep(directory: Path) -> None:
    target = _template()
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    shutil.copytree(directory, copy)
    try:
        copy.rename(target)  # atomic, so a run that is killed here leaves no half of a database
    except OSError:
        shutil.rmtree(copy)  # another run was first
