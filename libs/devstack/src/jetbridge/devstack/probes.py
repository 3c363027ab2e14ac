"""Ways to ask whether a server is ready, each by speaking to it."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import httpx
import psutil

from jetbridge.devstack.processes import ManagedProcess, Probe

_CONNECT_SECONDS = 1.0
_HTTP_SECONDS = 2.0


def accepts_connections(host: str, port: int) -> Probe:
    """Return a probe that is true once something listens there."""

    def probe() -> bool:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
                return True
        except OSError:
            return False

    return probe


def speaks(host: str, port: int, *, say: bytes = b"", expect: bytes) -> Probe:
    """Return a probe that is true once the server's first bytes, after ``say``, begin with ``expect``."""

    def probe() -> bool:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_SECONDS) as connection:
                connection.sendall(say)
                return connection.recv(len(expect), socket.MSG_WAITALL) == expect
        except OSError:
            return False

    return probe


def answers_http(url: str, *, ca_file: Path | None = None, below_status: int = 400) -> Probe:
    """Return a probe that is true once ``url`` answers a GET with a status below ``below_status``."""
    verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else False

    def probe() -> bool:
        try:
            # trust_env: a proxy in the environment must not swallow requests to this machine
            with httpx.Client(verify=verify, trust_env=False, timeout=_HTTP_SECONDS) as client:
                return client.get(url).status_code < below_status
        except (httpx.TransportError, OSError):
            return False

    return probe


def listens(process: ManagedProcess, port: int) -> Probe:
    """Return a probe that is true once this very process listens: others may share its port."""

    def probe() -> bool:
        try:
            connections = psutil.Process(process.pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)

    return probe
