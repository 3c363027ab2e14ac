"""An S3 server: MinIO where there is one, else rclone's, which serves a directory."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from jetbridge.devstack import tools
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import answers_http
from jetbridge.devstack.processes import Command, Supervisor
from jetbridge.devstack.servers import docker
from jetbridge.devstack.servers.handle import ExternalLifecycle, ProcessLifecycle, Server

VARIABLE = "JETBRIDGE_TEST_S3_URL"
ACCESS_KEY_VARIABLE = "JETBRIDGE_TEST_S3_ACCESS_KEY"
SECRET_KEY_VARIABLE = "JETBRIDGE_TEST_S3_SECRET_KEY"  # noqa: S105 - a variable's name
REGION_VARIABLE = "JETBRIDGE_TEST_S3_REGION"
IMAGE = "minio/minio:RELEASE.2025-04-22T22-12-26Z"
_REGION = "us-east-1"
_PORT = 9000
_ANY_ANSWER = 500
"""Without a signature a ready server answers 403; only 5xx means that it is not ready."""


@dataclass(frozen=True)
class S3Server(Server):
    """A running S3 server and the keys of its one user, who may make buckets."""

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = _REGION


def start(supervisor: Supervisor, name: str = "s3", *, host: str = "127.0.0.1") -> S3Server:
    """Find or start an S3 server; one that is started listens on ``host`` only."""
    if url := os.environ.get(VARIABLE):
        return _from_environment(url)
    port = free_port(host)
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(20)
    if docker.engine_answers():
        return _start_container(supervisor, name, (host, port), access_key, secret_key)
    return _start_process(supervisor, name, (host, port), access_key, secret_key)


def _from_environment(url: str) -> S3Server:
    try:
        keys = os.environ[ACCESS_KEY_VARIABLE], os.environ[SECRET_KEY_VARIABLE]
    except KeyError as exc:
        msg = f"{VARIABLE} is set, so {exc.args[0]} must be set too"
        raise DevStackError(msg) from exc
    region = os.environ.get(REGION_VARIABLE, _REGION)
    return S3Server(ExternalLifecycle(VARIABLE), f"address in {VARIABLE}", url, *keys, region)


def _start_process(
    supervisor: Supervisor, name: str, address: tuple[str, int], access_key: str, secret_key: str
) -> S3Server:
    directory = supervisor.directory / name
    directory.mkdir(parents=True, exist_ok=True)
    binary, command = _command(directory, "{}:{}".format(*address), access_key, secret_key)
    url = "http://{}:{}".format(*address)
    process = supervisor.add(name, command)
    lifecycle = ProcessLifecycle(process, answers_http(url, below_status=_ANY_ANSWER))
    lifecycle.start()
    return S3Server(lifecycle, str(binary), url, access_key, secret_key)


def _command(directory: Path, address: str, access_key: str, secret_key: str) -> tuple[Path, Command]:
    """Return the executable and its command; the keys are in its environment because argv is public."""
    if minio := tools.on_path("minio"):
        env = base_environment({"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key})
        return minio, Command(argv=[minio, "server", "--quiet", "--address", address, directory], env=env)
    rclone = tools.on_path("rclone") or tools.in_scripts("rclone")
    if rclone is None:
        msg = f"no minio or rclone on PATH, and no wheel of one; set {VARIABLE}"
        raise DevStackError(msg)
    # rclone parses the variable as CSV of pairs, so the pair itself is quoted. RCLONE_CONFIG="" keeps
    # the developer's own remotes out.
    env = base_environment({"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"', "RCLONE_CONFIG": ""})
    # Its directory cache stays as it is: every write goes through this process, and rclone 1.75 spins and
    # hangs uploads with --dir-cache-time 0.
    argv: list[str | Path] = [rclone, "serve", "s3", "--addr", address, directory]
    return rclone, Command(argv=argv, env=env)


def _start_container(
    supervisor: Supervisor, name: str, address: tuple[str, int], access_key: str, secret_key: str
) -> S3Server:
    url = "http://{}:{}".format(*address)
    lifecycle = docker.start_container(
        supervisor,
        name,
        IMAGE,
        address=address,
        container_port=_PORT,
        ready=answers_http(f"{url}/minio/health/live"),
        env={"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key},
        command=["server", "--quiet", "/data"],
    )
    return S3Server(lifecycle, f"Docker image {IMAGE}", url, access_key, secret_key)
