"""
What Dag code and callbacks may ask Airflow while they run in a parser. For the task SDK of Airflow 3.3.

Runs, task instances and XComs are read through the gateway. Variables and connections come from the site's
own secrets backend and environment, which a parser looks into before it asks its manager; what is left
gets here, and here there is none.
"""

from __future__ import annotations

import json

import httpx
from airflow.sdk.api.client import Client

from jetbridge.dag_processor.plane import Plane, PlaneError

_ORIGIN = "http://plane.invalid./"
"""Airflow's client wants an address; nothing is ever sent to it."""

_READABLE = frozenset({"dag-runs", "task-instances", "xcoms"})
_SECRETS = frozenset({"variables", "connections"})


class PlaneTransport(httpx.BaseTransport):
    """Answers Airflow's client in place of an API server."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        kind = request.url.path.strip("/").partition("/")[0]
        if request.method == "GET" and kind in _READABLE:
            return self._read(request.url.raw_path.decode("ascii").lstrip("/"))
        if request.method == "GET" and kind in _SECRETS:
            return _answer(404, "not_found", "A Dag processor has no variables or connections of the plane.")
        return _answer(403, "forbidden", f"A Dag processor may not {request.method} {kind} on the plane.")

    def _read(self, target: str) -> httpx.Response:
        try:
            answer = self._plane.read(target)
        except PlaneError as error:
            return _answer(503, "unavailable", str(error))
        return httpx.Response(answer.status, headers=_JSON, content=answer.content)


_JSON = {"content-type": "application/json"}


def _answer(status: int, reason: str, message: str) -> httpx.Response:
    body = {"detail": {"reason": reason, "message": message}}
    return httpx.Response(status, headers=_JSON, content=json.dumps(body))


def make_client(plane: Plane) -> Client:
    """Return a client as Airflow's manager makes it, with the plane behind it."""
    client = Client(base_url=None, token="", dry_run=True, transport=PlaneTransport(plane))
    client.base_url = _ORIGIN
    return client
