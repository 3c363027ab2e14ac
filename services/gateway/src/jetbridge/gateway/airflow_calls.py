"""
Calls to Airflow's Execution API: the connection, Airflow's token, and whose turn it is.

Airflow's api-server is one Python process with 5 connections to the database that it keeps
(``[database] sql_alchemy_pool_size``); each call beyond opens one of its own and waits for the same
interpreter. So only a few calls go on at once, and the others wait here, first come first served. A turn
lasts until Airflow's answer begins; what is still sent by the asker, or read by it, takes none.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from starlette.requests import Request
from yarl import URL

from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.airflow_tokens import AirflowTokens
from jetbridge.gateway.bodies import check_length, limited, whole
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.problems import ProblemError
from jetbridge.gateway.proxy_rules import forwarded_headers
from jetbridge.gateway.relay import Relay, upstream
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.gateway.tracing import upstream_template
from jetbridge.telemetry.spans import http_client, http_status
from jetbridge.telemetry.tracing import current_traceparent

IDLE_CONNECTION_SECONDS = 4.0
"""Airflow's api-server closes idle connections after uvicorn's 5 s; reusing one in that moment fails."""

READ_WHOLE_BYTES = 64 << 10
"""Up to this size a body is read before Airflow is asked."""

Body = bytes | AsyncIterator[bytes]


class LostMeanwhileError(Exception):
    """The lease in whose name a call waited for its turn is held no more."""


async def _held() -> bool:
    return True


@asynccontextmanager
async def airflow_session(settings: GatewaySettings) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the pool of connections to Airflow."""
    ca_file = settings.airflow_ca_file
    connector = aiohttp.TCPConnector(
        limit=settings.airflow_connections,
        keepalive_timeout=IDLE_CONNECTION_SECONDS,
        ssl=ssl.create_default_context(cafile=ca_file) if ca_file else True,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # what Airflow compressed goes on as it is
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        timeout=aiohttp.ClientTimeout(
            total=settings.airflow_response_seconds, sock_connect=settings.airflow_connect_seconds
        ),
    ) as session:
        yield session


@dataclass(frozen=True, kw_only=True)
class Call:
    """
    One call to Airflow.

    :param target: path and query, as Airflow gets them
    :param workload_id: in whose name it is made: the subject of Airflow's token
    :param body: in place of the request's own, if that was read already
    :param plain: ask for an answer that can be read here: Airflow compresses those over 1 KiB
    :param still_held: asked after a wait; False gives the call up
    """

    target: str
    workload_id: str
    body: bytes | None = None
    plain: bool = False
    still_held: Callable[[], Awaitable[bool]] = _held


@dataclass(frozen=True, kw_only=True)
class AirflowCalls:
    """Passes requests on, whose right to be passed on was looked at before. ``turns`` are of this process."""

    session: aiohttp.ClientSession
    turns: asyncio.Semaphore
    settings: GatewaySettings
    tokens: AirflowTokens
    metrics: GatewayMetrics

    async def forward(self, request: Request, call: Call) -> Relay:
        """Pass on a request; raises :class:`LostMeanwhileError`, or the problem to answer with."""
        headers = CIMultiDict(
            forwarded_headers(request.scope["headers"], self.tokens.token_for(call.workload_id))
        )
        if call.plain:
            headers["accept-encoding"] = "identity"
        data = await self._body(request) if call.body is None else call.body
        if isinstance(data, bytes):
            headers.popall("content-length", None)
        started = time.perf_counter()
        url = URL(self.settings.airflow_base + call.target, encoded=True)
        try:
            async with asyncio.timeout(self.settings.airflow_response_seconds), self._turn(data, call):
                answer = await self._ask(request.method, url, headers, data)
        except TimeoutError as exc:
            raise upstream("did not answer in time", call.workload_id) from exc
        except aiohttp.ClientError as exc:
            if isinstance(exc.__cause__, ProblemError):  # the body's fault, not Airflow's
                raise exc.__cause__ from exc
            raise upstream("cannot be reached", call.workload_id) from exc
        self.metrics.proxied.labels(request.method, str(answer.status)).observe(time.perf_counter() - started)
        return Relay(answer, self.settings.airflow_response_seconds)

    async def whole_body(self, request: Request) -> bytes:
        """Read a body to look into it; raises the problem to answer with."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ProblemError(ProblemType.UNSUPPORTED_MEDIA, "Send the body without a Content-Encoding.")
        body = await self._body(request)
        return await whole(body) if isinstance(body, AsyncIterator) else body or b""

    @asynccontextmanager
    async def _turn(self, data: Body | None, call: Call) -> AsyncIterator[None]:
        if isinstance(data, AsyncIterator):
            yield  # its sender could keep a turn for as long as it likes
            return
        waits = self.turns.locked()
        async with self.turns:
            if waits and not await call.still_held():
                raise LostMeanwhileError
            yield

    async def _ask(
        self, method: str, url: URL, headers: CIMultiDict[str], data: Body | None
    ) -> aiohttp.ClientResponse:
        with http_client(method, upstream_template(url.raw_path), url.raw_authority) as span:
            if traceparent := current_traceparent():
                headers["traceparent"] = traceparent
            answer = await self.session.request(
                method, url, headers=headers, data=data, allow_redirects=False
            )
            http_status(span, answer.status)
            return answer

    async def _body(self, request: Request) -> Body | None:
        """Return a body: whole, if it is small."""
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        if not has_body or request.headers.get("content-length") == "0":
            return None
        limits = self.settings.max_execution_body_bytes, self.settings.read_seconds
        await check_length(request, *limits)
        chunks = limited(request, *limits)
        if int(request.headers.get("content-length", READ_WHOLE_BYTES + 1)) > READ_WHOLE_BYTES:
            return chunks
        return await whole(chunks)
