"""
The outermost layer of the application: every request gets an id, a log context, metrics, and an answer.

Whatever goes wrong inside becomes a problem document. An error nobody expected is logged with its stack;
the answer carries only the id under which the log has it.
"""

from __future__ import annotations

import time
import uuid

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.boundary import Boundary
from jetbridge.gateway.limits import Limits
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.origin import note_origin, origin_of
from jetbridge.gateway.problems import ProblemError, problem_response
from jetbridge.gateway.tracing import continued, described
from jetbridge.telemetry.redaction import redact_text

log = structlog.get_logger(__name__)

_REFUSED = (403, 422)
"""Answers that mean: not across this boundary. Others are about the request itself, or are Airflow's."""

_BY_STATUS = {kind.status: kind for kind in ProblemType}
_ROUTER_DETAILS = {
    ProblemType.NOT_FOUND: "See /openapi.json for the operations of this API.",
    ProblemType.METHOD_NOT_ALLOWED: "See the Allow header, and /openapi.json.",
}


class Guard:
    """Pure ASGI middleware; Starlette's own adds a task and a queue to every request."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: GatewayMetrics,
        boundary: Boundary,
        trusted_proxies: tuple[str, ...],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._boundary = boundary
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        request_id = f"urn:uuid:{uuid.uuid4()}"
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        origin = note_origin(scope, self._trusted_proxies)
        structlog.contextvars.bind_contextvars(request_id=request_id, client=origin.address)
        sender = _Sender(send)
        with continued(scope) as span:
            try:
                await self._app(scope, receive, sender)
            except Exception:  # the answer was sent by the handler below; Starlette raises the error on to us
                log.exception("request.failed", method=scope["method"], path=redact_text(scope["path"]))
            finally:
                described(span, scope, sender.status)
                self._measure(scope, sender.status, time.perf_counter() - started)

    def _measure(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(route, scope["method"], str(status)).inc()
        self._metrics.duration.labels(route).observe(seconds)
        if counted_for := scope["state"].get("counted_for"):
            self._count(scope, route, status, *counted_for)

    def _count(self, scope: Scope, route: str, status: int, agent: str, site: str) -> None:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        self._boundary.count(
            scope["state"].get("operation", f"{scope['method']} {route.replace(':path', '')}"),
            agent=agent,
            site=site,
            size=int(declared) if declared.isdigit() else 0,
            refused=status in _REFUSED,
        )


def answer_problems(app: FastAPI, metrics: GatewayMetrics, limits: Limits, failed_per_minute: int) -> None:
    """
    Have every error of ``app`` answered with a problem document, counted and logged.

    Whoever is refused as unknown more than ``failed_per_minute`` times is told to wait instead.
    """

    async def refuse(request: Request, error: Exception) -> Response:
        problem = _as_problem(error)
        if problem.kind is ProblemType.UNAUTHENTICATED:
            try:
                await limits.take(f"failed:{origin_of(request.scope).address}", failed_per_minute)
            except ProblemError as too_many:
                problem = too_many
        metrics.refused.labels(problem.kind.slug).inc()
        log.info(
            "request.refused",
            problem=problem.kind.slug,
            detail=problem.detail,
            path=redact_text(request.scope["path"]),
        )
        return problem_response(problem, request.scope["state"]["request_id"])

    for kind in (ProblemError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)


def _as_problem(error: Exception) -> ProblemError:
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, HTTPException):  # the router's own: 404 and 405
        kind = _BY_STATUS.get(error.status_code, ProblemType.INTERNAL)
        return ProblemError(kind, _ROUTER_DETAILS.get(kind, ""), headers=error.headers)
    return ProblemError(
        ProblemType.INTERNAL, "The gateway's log tells more under the id in this problem's instance."
    )


class _Sender:
    """Remembers the status that was sent; 0 before."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
