"""
Puts an agent token into a Kubernetes Secret, unless one is there: a trial's charts need no hand between them.

Arguments: namespace and name of the Secret, which exists. Runs in the plane's image as a Job. The token goes
through one pipe to the API server and nowhere else. Dying between the two leaves a token that nobody knows;
the next run makes another.
"""

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))
KEY = "token"


def call(method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the Kubernetes API as this pod's service account; raises urllib's errors."""
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body else None)
    request.add_header("Authorization", "Bearer " + (ACCOUNT / "token").read_text().strip())
    request.add_header("Content-Type", "application/merge-patch+json")
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def new_token(name: str) -> str:
    """Have the plane make a token; its expiry is the plane's default."""
    command = ["jetbridge", "token", "create", "--name", name]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main(namespace: str, name: str) -> None:
    """Fill the Secret's key ``token`` if it is empty."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    address = f"[{host}]" if ":" in host else host
    url = f"https://{address}:{port}/api/v1/namespaces/{namespace}/secrets/{name}"
    if (call("GET", url).get("data") or {}).get(KEY):
        print(f"Secret {name} holds a token already")
        return
    call("PATCH", url, {"stringData": {KEY: new_token(name)}})
    print(f"Secret {name} holds a new token")


if __name__ == "__main__":
    main(*sys.argv[1:])
