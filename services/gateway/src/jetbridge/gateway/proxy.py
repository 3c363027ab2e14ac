"""
``/execution/*``: passed on to Airflow's Execution API, with Airflow's token in place of the lease's.

The lease is checked on every request, so a lease that moved on is fenced at once, whatever the agent
thinks. A lost lease is answered the way Airflow's own client understands: 410 as plain
``application/json`` with a ``detail`` object makes its supervisor stop the task. Everything that may get
better is a 5xx, which that client tries again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import msgspec
import structlog
from multidict import CIMultiDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from yarl import URL

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.airflow_tokens import AirflowTokens
from jetbridge.gateway.auth import Gatekeeper
from jetbridge.gateway.bodies import check_length, limited
from jetbridge.gateway.contact import Contact
from jetbridge.gateway.credentials import LeaseClaims, TriggerClaims
from jetbridge.gateway.holdings import Holdings
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.problems import ProblemError, unavailable
from jetbridge.gateway.proxy_rules import PathError, forwarded_headers, returned_headers, upstream_target
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.gateway.triggers import TriggerDesk
from jetbridge.telemetry.tracing import remote_context, tracer

log = structlog.get_logger(__name__)
_tracer = tracer(__name__)

IDLE_CONNECTION_SECONDS = 4.0
"""Airflow's api-server closes idle connections after uvicorn's 5 s; reusing one in that moment fails."""


class LeaseLostResponse(Response):
    """A lost lease, in the form that ends a task in Airflow's supervisor."""

    def __init__(self) -> None:
        detail = {"reason": "lease_lost", "message": "This lease is not held by its agent any more."}
        super().__init__(
            msgspec.json.encode({"detail": detail}), status_code=410, media_type="application/json"
        )


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """Passes the requests of running workloads on."""

    session: aiohttp.ClientSession
    settings: GatewaySettings
    gatekeeper: Gatekeeper
    holdings: Holdings
    contact: Contact
    tokens: AirflowTokens
    triggers: TriggerDesk
    metrics: GatewayMetrics

    async def handle(self, request: Request) -> Response:
        """Answer one request; raises the problem to answer with."""
        holder = self.gatekeeper.holder(request.scope["headers"])
        structlog.contextvars.bind_contextvars(agent=holder.agent, **_names(holder))
        try:
            target = upstream_target(request.scope["raw_path"], request.scope["query_string"])
        except PathError as exc:
            raise ProblemError(ProblemType.MALFORMED, f"The request is not passed on: {exc}.") from exc
        subject = await self._subject(holder)
        if subject is None:
            log.info("lease.fenced")
            self.metrics.refused.labels("lease-lost").inc()
            return LeaseLostResponse()
        context = remote_context(request.headers.get("traceparent"))
        with _tracer.start_as_current_span("gateway.proxy", context=context):
            return await self._forward(request, target, subject)

    async def read(self, request: Request, path: bytes, subject: str) -> Response:
        """
        Pass on a read of ``path`` in the name of ``subject``; who may read what, the caller has checked.

        Raises the problem to answer with.
        """
        try:
            target = upstream_target(path, request.scope["query_string"])
        except PathError as exc:
            raise ProblemError(ProblemType.MALFORMED, f"The request is not passed on: {exc}.") from exc
        return await self._forward(request, target, subject)

    async def _subject(self, holder: LeaseClaims | TriggerClaims) -> str | None:
        """Return in whose name Airflow is asked; None when the lease is lost."""
        if isinstance(holder, TriggerClaims):
            return await self.triggers.subject_of(holder)
        return holder.lease.workload_id if await self._is_held(holder) else None

    async def _is_held(self, holder: LeaseClaims) -> bool:
        if not self.contact.within(self.settings.lease_seconds):
            # By now the plane may have given the work to somebody else without our hearing of it.
            raise unavailable("The gateway has no contact to NATS, so leases cannot be checked.")
        try:
            return await self.holdings.is_held(holder.lease, holder.agent)
        except BusUnavailableError as exc:
            raise unavailable("The lease cannot be checked now because NATS is away.") from exc

    async def _forward(self, request: Request, target: str, workload_id: str) -> Response:
        headers = forwarded_headers(request.scope["headers"], self.tokens.token_for(workload_id))
        started = time.perf_counter()
        try:
            answer = await self.session.request(
                request.method,
                URL(self.settings.airflow_base + target, encoded=True),
                headers=CIMultiDict(headers),
                data=await self._body(request),
                allow_redirects=False,
            )
        except TimeoutError as exc:
            raise _upstream("did not answer in time", workload_id) from exc
        except aiohttp.ClientError as exc:
            if isinstance(exc.__cause__, ProblemError):  # the body's fault, not Airflow's
                raise exc.__cause__ from exc
            raise _upstream("cannot be reached", workload_id) from exc
        self.metrics.proxied.labels(request.method, str(answer.status)).observe(time.perf_counter() - started)
        return _Relay(answer)

    async def _body(self, request: Request) -> AsyncIterator[bytes] | None:
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        if not has_body or request.headers.get("content-length") == "0":
            return None
        limits = self.settings.max_execution_body_bytes, self.settings.read_seconds
        await check_length(request, *limits)
        return limited(request, *limits)


def _names(holder: LeaseClaims | TriggerClaims) -> dict[str, str | int]:
    if isinstance(holder, TriggerClaims):
        return {"trigger_id": holder.trigger_id, "triggerer": holder.triggerer}
    return {"lease": str(holder.lease)}


class _Relay(Response):
    """Airflow's answer, passed on chunk by chunk."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        super().__init__(status_code=answer.status)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async with self._answer as answer:
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": returned_headers(answer.raw_headers),
                }
            )
            try:
                async for chunk in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except (aiohttp.ClientError, TimeoutError) as exc:
                # Left unfinished, so that the server cuts the connection: the client must not take what it
                # has for the whole.
                log.warning("proxy.upstream_cut", error=type(exc).__name__)
                return
            await send({"type": "http.response.body", "body": b""})


def _upstream(what: str, workload_id: str) -> ProblemError:
    log.warning("proxy.upstream_failed", workload_id=workload_id, what=what)
    return ProblemError(
        ProblemType.UPSTREAM, f"Airflow's api-server {what}. Try again.", headers={"Retry-After": "1"}
    )
