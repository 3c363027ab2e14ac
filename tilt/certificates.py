"""
Prints the namespace, and the gateway's certificate as a Secret and its authority as a ConfigMap, for kubectl.

Arguments: namespace, release of the plane. Made once and kept in .jetbridge/tilt, so that agents go on
trusting the gateway when the Tiltfile is evaluated again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jetbridge.devstack.tls import Certificates, make_certificates

KEPT = Path(__file__).parent.parent / ".jetbridge" / "tilt"


def certificates(directory: Path, namespace: str, service: str) -> Certificates:
    """Return the files, made now if they are not there."""
    files = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    if files.key.exists():
        return files
    suffixes = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    return make_certificates(directory, *(service + suffix for suffix in suffixes), "localhost", "127.0.0.1")


def objects(files: Certificates, namespace: str, service: str) -> list[dict[str, Any]]:
    """Return what kubectl is to apply."""
    secret = {"tls.crt": files.certificate, "tls.key": files.key, "ca.crt": files.ca}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": f"{service}-tls", "namespace": namespace},
            "stringData": {name: path.read_text() for name, path in secret.items()},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{service}-ca", "namespace": namespace},
            "data": {"ca.crt": files.ca.read_text()},
        },
    ]


def main(namespace: str, release: str) -> None:
    """Print the objects as a YAML stream; JSON is YAML."""
    service = f"{release}-gateway"
    files = certificates(KEPT / f"{namespace}-{release}", namespace, service)
    documents = (json.dumps(item) for item in objects(files, namespace, service))
    sys.stdout.write("\n---\n".join(documents) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
