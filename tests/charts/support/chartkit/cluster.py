"""
A real Kubernetes API server without nodes: etcd and kube-apiserver, where both are to be had.

They are looked for as controller-runtime's envtest does: in $KUBEBUILDER_ASSETS, then on PATH. Nothing runs
pods here, but schemas, defaults, admission (Pod Security), RBAC and Helm's three-way merge are the real ones.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import httpx

from jetbridge.devstack.ports import free_port
from jetbridge.devstack.processes import Command, Supervisor
from jetbridge.devstack.tls import make_certificates

_TOKEN = "of-this-test-run-only"
_READY_SECONDS = 120.0
_LOOPBACK = "127.0.0.1"


def binary(name: str) -> str | None:
    """Return the path of `etcd` or `kube-apiserver`, or None."""
    return shutil.which(
        name, path=f"{os.environ.get('KUBEBUILDER_ASSETS', '')}{os.pathsep}{os.environ['PATH']}"
    )


@dataclass(frozen=True)
class Cluster:
    """An API server and its administrator."""

    url: str
    ca: Path
    client: httpx.Client

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Ask the API; raises httpx.HTTPStatusError with the server's own words."""
        answer = self.client.request(method, path, json=body, headers=headers)
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        return answer.json()

    def helm(self, namespace: str) -> helm_python.Config:
        """Return Helm's connection to this cluster."""
        return helm_python.Config(
            kube_apiserver=self.url, kube_token=_TOKEN, kube_ca_file=self.ca, namespace=namespace
        )


def start(supervisor: Supervisor, directory: Path) -> Cluster:
    """Start both and wait until the API server is ready."""
    etcd_url = _start_etcd(supervisor, directory)
    tls = make_certificates(directory / "tls", _LOOPBACK, "localhost")
    signing_key = directory / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(signing_key), "2048"], check=True, capture_output=True)
    tokens = directory / "tokens.csv"
    tokens.write_text(f'{_TOKEN},administrator,1,"system:masters"\n')
    port = free_port()
    flags = {
        "etcd-servers": etcd_url,
        "bind-address": _LOOPBACK,
        "advertise-address": "10.255.255.1",  # not a loopback address, which the API server refuses
        "secure-port": str(port),
        "tls-cert-file": str(tls.certificate),
        "tls-private-key-file": str(tls.key),
        "service-cluster-ip-range": "10.96.0.0/16",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": str(signing_key),
        "service-account-signing-key-file": str(signing_key),
        "token-auth-file": str(tokens),
        "authorization-mode": "RBAC",
        # No controller makes the accounts "default" that this plugin would wait for.
        "disable-admission-plugins": "ServiceAccount",
    }
    argv = [str(binary("kube-apiserver")), *(f"--{name}={value}" for name, value in flags.items())]
    process = supervisor.add("kube-apiserver", Command(argv=argv, env=dict(os.environ)))
    process.start()
    url = f"https://{_LOOPBACK}:{port}"
    client = httpx.Client(
        base_url=url,
        verify=ssl.create_default_context(cafile=tls.ca),
        headers={"Authorization": f"Bearer {_TOKEN}"},
        timeout=30,
    )
    process.wait_ready(lambda: _answers(client, "/readyz"), timeout_seconds=_READY_SECONDS)
    return Cluster(url, tls.ca, client)


def _start_etcd(supervisor: Supervisor, directory: Path) -> str:
    client, peer = (f"http://{_LOOPBACK}:{free_port()}" for _ in range(2))
    flags = {
        "data-dir": str(directory / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",
    }
    argv = [str(binary("etcd")), *(f"--{name}={value}" for name, value in flags.items())]
    process = supervisor.add("etcd", Command(argv=argv, env=dict(os.environ)))
    process.start()
    with httpx.Client(base_url=client, timeout=5) as asking:
        process.wait_ready(lambda: _answers(asking, "/health"), timeout_seconds=_READY_SECONDS)
    return client


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False
