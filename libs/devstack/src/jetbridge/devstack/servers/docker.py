"""Servers in containers, when a Docker engine really answers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jetbridge.devstack.processes import NotReadyError, Probe, Supervisor
from jetbridge.devstack.servers.handle import READY_SECONDS

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_DEFAULT_HOST = "unix:///var/run/docker.sock"
_PING_SECONDS = 3
_STOP_SECONDS = 10
OFF_VARIABLE = "JETBRIDGE_TEST_DOCKER"


@cache
def engine_answers() -> bool:
    """
    Whether containers can be started here: a real ping with a time limit.

    The client alone (a ``docker`` on PATH with no engine behind it) is not enough, and must not hang.
    ``JETBRIDGE_TEST_DOCKER=0`` says no without asking.
    """
    if os.environ.get(OFF_VARIABLE) == "0":
        return False
    if util.find_spec("testcontainers") is None:  # optional: only with the `test` extra
        return False
    # Not docker.from_env().ping(): where no engine answers, that leaves its socket open.
    host = os.environ.get("DOCKER_HOST", _DEFAULT_HOST)
    try:
        with closing(_connect(host)) as connection:
            connection.settimeout(_PING_SECONDS)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.makefile("rb").readline()
    except (OSError, ValueError):
        return False


def why_not() -> str:
    """Say why no engine is used, for a head line."""
    if os.environ.get(OFF_VARIABLE) == "0":
        return f"{OFF_VARIABLE}=0"
    if util.find_spec("testcontainers") is None:
        return "testcontainers is not installed"
    return f"no Docker engine answers at {os.environ.get('DOCKER_HOST', _DEFAULT_HOST)}"


def _connect(host: str) -> socket.socket:
    url = urlsplit(host)
    if url.scheme != "unix":
        return socket.create_connection((url.hostname or "", url.port or 2375), timeout=_PING_SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_PING_SECONDS)
        connection.connect(url.path)
    except OSError:
        connection.close()
        raise
    return connection


@dataclass(frozen=True)
class ContainerLifecycle:
    """A server in a container. Its published port is fixed, so that it survives a restart."""

    container: DockerContainer
    name: str
    ready: Probe

    def start(self) -> None:
        """Start the container again and wait until the probe answers."""
        self.container.get_wrapped_container().start()
        wait_ready(self.name, self.ready)

    def stop(self) -> None:
        """Stop the container in order."""
        self.container.get_wrapped_container().stop(timeout=_STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL the container's process."""
        self.container.get_wrapped_container().kill()


def start_container(  # noqa: PLR0913 - what a container is
    supervisor: Supervisor,
    name: str,
    image: str,
    *,
    address: tuple[str, int],
    container_port: int,
    ready: Probe,
    env: dict[str, str] | None = None,
    command: Sequence[str] = (),
    mounts: dict[Path, str] | None = None,
) -> ContainerLifecycle:
    """Run a container that listens on ``address`` of this machine only and ends with the supervisor."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - optional dependency

    container = DockerContainer(image)
    # Not with_bind_ports(), which publishes on every address of this machine.
    container.ports[f"{container_port}/tcp"] = address  # type: ignore[assignment]  # docker takes pairs, too
    for key, value in (env or {}).items():
        container.with_env(key, value)
    for path, inside in (mounts or {}).items():
        container.with_volume_mapping(str(path), inside, "ro")
    if command:
        container.with_command(list(command))
    supervisor.on_exit(lambda: container.stop(force=True, delete_volume=True))
    container.start()
    wait_ready(name, ready)
    return ContainerLifecycle(container, name, ready)


def wait_ready(name: str, probe: Probe) -> None:
    """Wait for a container's probe; raises :class:`NotReadyError`."""
    deadline = time.monotonic() + READY_SECONDS
    while not probe():
        if time.monotonic() > deadline:
            msg = f"the {name} container did not answer within {READY_SECONDS:.0f} s; see `docker ps -a`"
            raise NotReadyError(msg)
        time.sleep(0.1)
