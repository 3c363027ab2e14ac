"""
What Dag code and callbacks may ask Airflow while they run in a parser: nothing of the plane's secrets.

Variables and connections come from the site's own secrets backend and environment, which a parser looks into
before it asks its manager. What is left gets here, and here there is none.
"""

from __future__ import annotations

import json

import httpx
from airflow.sdk.api.client import Client

_ORIGIN = "http://dag-processor.invalid./"
"""Airflow's client wants an address; nothing is ever sent to it."""

_SECRETS = frozenset({"variables", "connections"})


class NoPlaneSecrets(httpx.BaseTransport):
    """Answers in place of Airflow's API server."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        kind = request.url.path.strip("/").partition("/")[0]
        if kind in _SECRETS and request.method in ("GET", "HEAD"):
            return _answer(404, "not_found", "A Dag processor has no variables or connections of the plane.")
        return _answer(403, "forbidden", f"A Dag processor may not {request.method} {kind} on the plane.")


def _answer(status: int, reason: str, message: str) -> httpx.Response:
    body = {"detail": {"reason": reason, "message": message}}
    return httpx.Response(status, headers={"content-type": "application/json"}, content=json.dumps(body))


def make_client() -> Client:
    """Return a client as Airflow's manager makes it, without an API server behind it."""
    client = Client(base_url=None, token="", dry_run=True, transport=NoPlaneSecrets())
    client.base_url = _ORIGIN
    return client
