"""
Airflow's Execution API for triggers, through the gateway. For the task SDK of Airflow 3.3.

All triggers share one client and its connections. Each request carries the token of the trigger it is made
for, which is good for as long as this agent holds that trigger.
"""

from __future__ import annotations

from collections.abc import Generator
from contextvars import ContextVar

import httpx
from airflow.sdk.api.client import Client

lease_token: ContextVar[str] = ContextVar("lease_token")
"""The token of the trigger for which this thread makes requests."""


class LeaseAuth(httpx.Auth):
    """Puts the current trigger's token on each request."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Authenticate one request."""
        request.headers["Authorization"] = f"Bearer {lease_token.get()}"
        yield request


def make_client(server: str) -> Client:
    """Return a client for the Execution API at ``server``; CA and retries are in Airflow's configuration."""
    client = Client(base_url=server, token="")
    client.auth = LeaseAuth()
    return client
