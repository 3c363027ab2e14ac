"""``/status``, ``/metrics`` and ``/healthz`` of a site's sentinel, for the site's owner. No secrets there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from jetbridge.contracts.sites import AgentSeen, CheckSeen
from jetbridge.sentinel.site.metrics import SiteMetrics
from jetbridge.sentinel.site.view import SiteView

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

STUCK_SECONDS = 30.0
"""A loop that turns every second and has not for this long is stuck."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /status``: what the sentinel sees."""

    site: str
    sentinel: str
    well: bool
    agents: tuple[AgentSeen, ...]
    checks: tuple[CheckSeen, ...]


class Pages:
    """A WSGI application; called in threads, it only reads what the loop replaces whole."""

    def __init__(self, site: str, sentinel: str, view: SiteView, metrics: SiteMetrics) -> None:
        self._site = site
        self._sentinel = sentinel
        self._view = view
        self._metrics = metrics
        self._turned_at = time.monotonic()

    def turned(self) -> None:
        """Note that the loop turns."""
        self._turned_at = time.monotonic()

    def status(self) -> Status:
        """Return what is seen now."""
        view = self._view
        return Status(
            site=self._site,
            sentinel=self._sentinel,
            well=view.is_well,
            agents=view.agents,
            checks=view.checks,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        status, content_type, body = self._answer(environ)
        start_response(status, [("Content-Type", content_type), ("Cache-Control", "no-store")])
        return [body]

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, str, bytes]:
        match environ.get("PATH_INFO"):
            case "/status":
                return "200 OK", "application/json", msgspec.json.encode(self.status())
            case "/metrics":
                self._metrics.take(self._view)
                body, content_type = self._metrics.metrics.render(environ.get("HTTP_ACCEPT", ""))
                return "200 OK", content_type, body
            case "/healthz" if time.monotonic() - self._turned_at < STUCK_SECONDS:
                return "200 OK", "text/plain", b"ok\n"
            case "/healthz":
                return "503 Service Unavailable", "text/plain", b"the sentinel's loop is stuck\n"
        return "404 Not Found", "text/plain", b"see /status, /metrics and /healthz\n"
