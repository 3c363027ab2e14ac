"""
The servers as session fixtures: started on first use, gone at the end of the session.

Each is really one server per session. Tests keep apart by names of their own (bucket, stream, key
prefix, database), and a test that stops a server starts it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import docker, nats, postgres, redis
from jetbridge.devstack.servers import s3 as s3_servers


def pytest_report_header() -> str:
    """Say what the servers of this session are: images, where a Docker engine answers, or processes."""
    if docker.engine_answers():
        return f"servers: the images {nats.IMAGE}, {redis.IMAGE}, {postgres.IMAGE}, {s3_servers.IMAGE}"
    return f"servers: processes of this machine, not images: {docker.why_not()}"


@pytest.fixture(scope="session")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """Yield the supervisor of this test session; every process of it ends with the session."""
    with Supervisor(tmp_path_factory.mktemp("servers")) as supervisor:
        yield supervisor


@pytest.fixture(scope="session")
def nats_server(supervisor: Supervisor) -> nats.NatsServer:
    """Return a JetStream server: ``url``, ``stop()``, ``kill()``, ``start()`` (same port, same store)."""
    return nats.start(supervisor)


@pytest.fixture(scope="session")
def nats_url(nats_server: nats.NatsServer) -> str:
    """Return the address of ``nats_server``, credentials included."""
    return nats_server.url


@pytest.fixture(scope="session")
def redis_server(supervisor: Supervisor) -> redis.RedisServer:
    """Return a Redis: ``url``, ``stop()``, ``kill()``, ``start()``."""
    return redis.start(supervisor)


@pytest.fixture(scope="session")
def redis_url(redis_server: redis.RedisServer) -> str:
    """Return the address of ``redis_server``, password included."""
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server(supervisor: Supervisor) -> postgres.PostgresServer:
    """Return a PostgreSQL: ``url``, ``create_database(name)``, ``stop()``, ``kill()``, ``start()``."""
    return postgres.start(supervisor)


@pytest.fixture(scope="session")
def database_url(postgres_server: postgres.PostgresServer) -> str:
    """Return an empty database of this session."""
    return postgres_server.create_database("test")


@pytest.fixture(scope="session")
def s3_server(supervisor: Supervisor) -> s3_servers.S3Server:
    """Return an S3 server: ``endpoint_url``, ``access_key``, ``secret_key``, ``region``."""
    return s3_servers.start(supervisor)


@pytest.fixture(scope="session")
def s3(s3_server: s3_servers.S3Server) -> s3_servers.S3Server:
    """Return the same as ``s3_server``, under the name most tests want."""
    return s3_server


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """Return a directory of this test for a supervisor of its own."""
    return tmp_path / "run"
