"""What tasks are answered: what Airflow said, passed on, or a refusal as Airflow's client understands it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.problems import ProblemError
from jetbridge.gateway.proxy_rules import returned_headers

log = structlog.get_logger(__name__)


class LeaseLostResponse(Response):
    """A lost lease, in the form that ends a task in Airflow's supervisor."""

    def __init__(self) -> None:
        detail = {"reason": "lease_lost", "message": "This lease is not held by its agent any more."}
        super().__init__(
            msgspec.json.encode({"detail": detail}), status_code=410, media_type="application/json"
        )


class BoundaryResponse(Response):
    """Data that may not cross, in the form that Airflow's supervisor writes into the task's log."""

    def __init__(self, why: str) -> None:
        detail = {"reason": ProblemType.BOUNDARY.slug, "message": why}
        super().__init__(
            msgspec.json.encode({"detail": detail}),
            status_code=ProblemType.BOUNDARY.status,
            media_type="application/json",
        )


class Relay(Response):
    """
    Airflow's answer, passed on chunk by chunk.

    A client that does not read would otherwise keep a connection to Airflow for as long as it likes.
    """

    def __init__(self, answer: aiohttp.ClientResponse, limit_seconds: float) -> None:
        super().__init__(status_code=answer.status)
        self._answer = answer
        self._limit_seconds = limit_seconds

    async def changed(self, change: Callable[[bytes], bytes]) -> Response:
        """Return the same answer with its content changed, if it is a good one."""
        if self._answer.status != 200:
            return self
        if self._answer.headers.get("content-encoding"):
            self._answer.close()
            raise upstream("sent an answer compressed that was asked for plain", "")
        async with self._answer as answer:
            try:
                content = await answer.read()
            except (aiohttp.ClientError, TimeoutError) as exc:
                raise upstream("cut its answer", "") from exc
        headers = [
            (name, value)
            for name, value in returned_headers(answer.raw_headers)
            if name.lower() != b"content-length"
        ]
        response = Response(change(content), status_code=200)
        response.raw_headers = [*headers, (b"content-length", str(len(response.body)).encode())]
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send the answer."""
        async with self._answer as answer:
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": returned_headers(answer.raw_headers),
                }
            )
            try:
                async with asyncio.timeout(self._limit_seconds):
                    async for chunk in answer.content.iter_any():
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except (aiohttp.ClientError, TimeoutError) as exc:
                # Left unfinished, so that the server cuts the connection: the client must not take what it
                # has for the whole.
                log.warning("proxy.answer_cut", error=type(exc).__name__)
                return
            await send({"type": "http.response.body", "body": b""})


def upstream(what: str, workload_id: str) -> ProblemError:
    """Return the problem to answer with when Airflow did not answer as it should."""
    log.warning("proxy.upstream_failed", workload_id=workload_id, what=what)
    return ProblemError(
        ProblemType.UPSTREAM, f"Airflow's api-server {what}. Try again.", headers={"Retry-After": "1"}
    )
