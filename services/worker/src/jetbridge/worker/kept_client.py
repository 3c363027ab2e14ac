"""
Airflow's client, kept by a supervisor from one of its tasks to the next: a connection costs a TLS handshake.

The connection has no rights of its own: each call carries the token of the task it is made for. All the same
no task gets it: a fork hook closes the child's copy before any code of the task runs.

For Airflow 3.3: ``supervise_task(client=…)`` leaves a client open that it was given, and ``Client.auth`` is
what its calls carry. ``tests/unit/worker/test_airflow_contract.py`` fails when one of these changes.
"""

from __future__ import annotations

import os
import socket

import httpx
from airflow.sdk.api.client import BearerAuth, Client

from jetbridge.agent.connections import IDLE_CONNECTION_SECONDS

LIMITS = httpx.Limits(
    max_connections=10, max_keepalive_connections=1, keepalive_expiry=IDLE_CONNECTION_SECONDS
)
"""As Airflow's supervisor has them, but for httpx' 5 s: less than lies between two heartbeats of a task."""

CLOSED = -1
"""What a socket has for a descriptor once it is closed: a gateway that drains ends its connections."""


class KeptClient:
    """The client of this process; for processes of one thread."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._socket: socket.socket | None = None

    def for_task(self, server: str, token: str) -> Client:
        """Return the client, whose calls carry ``token`` from now on. ``server`` is always the same."""
        if self._client is None:
            self._client = Client(base_url=server, token=token, limits=LIMITS)
            self._client.event_hooks["response"].append(self._note_socket)
            os.register_at_fork(after_in_child=self._leave_to_supervisor)
        self._client.auth = BearerAuth(token)
        return self._client

    def _note_socket(self, response: httpx.Response) -> None:
        self._socket = response.extensions["network_stream"].get_extra_info("socket")

    def _leave_to_supervisor(self) -> None:
        # Without a word: TLS would end for the supervisor, too. What OpenSSL has of it stays in memory, of no
        # use without the socket; to free it would take copies of its pages.
        if self._socket is not None and (descriptor := self._socket.detach()) != CLOSED:
            os.close(descriptor)
        self._socket = None


kept = KeptClient()
"""That of this process, if it is a supervisor."""
