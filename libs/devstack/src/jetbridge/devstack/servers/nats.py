"""nats-server with JetStream."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from jetbridge.devstack import tools
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import speaks
from jetbridge.devstack.processes import Command, Supervisor
from jetbridge.devstack.servers import docker
from jetbridge.devstack.servers.handle import ExternalLifecycle, ProcessLifecycle, Server

VARIABLE = "JETBRIDGE_TEST_NATS_URL"
IMAGE = "nats:2.12-alpine"
_HOST = "127.0.0.1"
_PORT = 4222
_CONFIG = """\
listen: "{listen}"
jetstream {{ store_dir: "{store}"{limit} }}
authorization {{ user: "jetbridge", password: "{password}" }}
"""


@dataclass(frozen=True)
class NatsServer(Server):
    """A running nats-server. ``url`` holds the credentials; it stays the same over a restart."""

    url: str


def start(supervisor: Supervisor, name: str = "nats", *, max_store: str = "") -> NatsServer:
    """
    Find or start a JetStream server; it stores below the supervisor's directory.

    ``max_store`` (``8G``) is what streams may reserve in all, for a process; by default what the disk has.
    """
    if url := os.environ.get(VARIABLE):
        return NatsServer(ExternalLifecycle(VARIABLE), f"address in {VARIABLE}", url)
    if docker.engine_answers():
        return _start_container(supervisor, name)
    return _start_process(supervisor, name, max_store)


def _start_process(supervisor: Supervisor, name: str, max_store: str) -> NatsServer:
    binary = tools.nats_server()
    port, password = free_port(), secrets.token_urlsafe(16)
    directory = supervisor.directory / name
    config = _write_config(
        directory,
        listen=f"{_HOST}:{port}",
        store=directory / "store",
        password=password,
        limit=f", max_file_store: {max_store}" if max_store else "",
    )
    process = supervisor.add(name, Command(argv=[binary, "-c", config], env=base_environment()))
    lifecycle = ProcessLifecycle(process, speaks(_HOST, port, expect=b"INFO "))
    lifecycle.start()
    return NatsServer(lifecycle, str(binary), _url(password, port))


def _start_container(supervisor: Supervisor, name: str) -> NatsServer:
    port, password = free_port(), secrets.token_urlsafe(16)
    config = _write_config(
        supervisor.directory / name, listen=f"0.0.0.0:{_PORT}", store=Path("/data"), password=password
    )
    lifecycle = docker.start_container(
        supervisor,
        name,
        IMAGE,
        address=(_HOST, port),
        container_port=_PORT,
        ready=speaks(_HOST, port, expect=b"INFO "),
        command=["nats-server", "-c", "/etc/jetbridge-nats.conf"],
        mounts={config: "/etc/jetbridge-nats.conf"},
    )
    return NatsServer(lifecycle, f"Docker image {IMAGE}", _url(password, port))


def _write_config(directory: Path, *, listen: str, store: Path, password: str, limit: str = "") -> Path:
    """Write the configuration; the password is in a private file because argv is public."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "nats.conf"
    path.touch(mode=0o600)
    path.write_text(_CONFIG.format(listen=listen, store=store, password=password, limit=limit))
    return path


def _url(password: str, port: int) -> str:
    return f"nats://jetbridge:{password}@{_HOST}:{port}"
