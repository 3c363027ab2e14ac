"""
The Remote Execution API as typed calls. One attempt each: repeating is ``link``'s, credentials ``session``'s.

Errors of the network and problem documents become the classes in ``errors``; nothing here logs, so no
credential can end up in a log.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from jetbridge.agent.errors import (
    AgentEndedError,
    AgentReplacedError,
    CredentialRefusedError,
    GatewayError,
    GatewayUnavailableError,
    GatewayUnreachableError,
    LeaseLostError,
    NotAGatewayError,
    RequestRefusedError,
    TokenRefusedError,
    UnknownContractError,
)
from jetbridge.agent.http import Answer, Http, HttpClient, Limits, NoAnswerError
from jetbridge.agent.settings import AgentSettings
from jetbridge.contracts.api import (
    AcceptRequest,
    AcceptResponse,
    GoodbyeRequest,
    GoodbyeResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    PollRequest,
    PollResponse,
    Problem,
    RegisterRequest,
    RegisterResponse,
    ReportRequest,
    ReportResponse,
    Request,
    Response,
)
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.problems import TYPE_PREFIX, ProblemType
from jetbridge.telemetry.spans import http_client, http_status
from jetbridge.telemetry.tracing import trace_headers

CONNECT_TIMEOUT_SECONDS = 10.0
"""A TLS handshake over a bad WAN takes seconds, not tens of them."""

ANSWER_TIMEOUT_SECONDS = 20.0
"""The gateway's own limits (bus, Airflow) are shorter: after this nobody is working on an answer."""

POLL_MARGIN_SECONDS = 15.0
"""How much longer than it asked to be held a poll waits for its answer."""

_BY_PROBLEM: dict[str, type[GatewayError]] = {
    ProblemType.UNAUTHENTICATED.uri: CredentialRefusedError,
    ProblemType.AGENT_REPLACED.uri: AgentReplacedError,
    ProblemType.AGENT_ENDED.uri: AgentEndedError,
    ProblemType.LEASE_LOST.uri: LeaseLostError,
    ProblemType.UNKNOWN_CONTRACT.uri: UnknownContractError,
}
_ID_SEGMENT = 3
_TRY_LATER = frozenset({408, 429})
_NOBODY_TOOK_IT = _TRY_LATER | {502, 503, 504}

_HEADERS = {"content-type": "application/json", "accept": "application/json, application/problem+json"}

_encoder = msgspec.json.Encoder()


def headers_with(bearer: str, own: Mapping[str, str] = _HEADERS) -> dict[str, str]:
    """Return the headers of a call that ``bearer`` gives the right to; ``own`` go before what is usual."""
    return {**_HEADERS, **own, "authorization": f"Bearer {bearer}"}


def limits(answer_seconds: float = ANSWER_TIMEOUT_SECONDS) -> Limits:
    """Return the limits of a call whose answer may take that long."""
    return Limits(connect_seconds=CONNECT_TIMEOUT_SECONDS, answer_seconds=answer_seconds)


A = TypeVar("A", bound=Response)


def tls_context(ca_file: Path | None, client_cert: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """
    Return a context that trusts ``ca_file`` alone or, without one, what the system trusts.

    ``client_cert`` is a certificate and its key, shown to a gateway that asks for one.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_cert is not None:
        context.load_cert_chain(*client_cert)
    return context


def tls_of(settings: AgentSettings) -> ssl.SSLContext | None:
    """Return the context for the gateway that the settings name; None for plain HTTP."""
    if not settings.gateway.startswith("https:"):
        return None
    return tls_context(settings.ca_file, settings.client_cert)


class GatewayClient:
    """
    Connections to one gateway.

    :param gateway: base address, without ``/v1``
    :param tls: see :func:`tls_context`
    :param http: something else than the network, for tests
    """

    def __init__(self, gateway: str, tls: ssl.SSLContext | None = None, http: Http | None = None) -> None:
        self._gateway = gateway.rstrip("/")
        self._http = http if http is not None else HttpClient(self._gateway, tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.close()

    async def register(self, token: AgentToken, body: RegisterRequest) -> RegisterResponse:
        """Exchange the agent token for a credential."""
        try:
            return await self._post("/v1/agents", str(token), body, RegisterResponse)
        except CredentialRefusedError as error:
            raise TokenRefusedError(
                f"the gateway refused agent token {token.id}: {error}; it may have expired or been revoked. "
                "Make a new one with 'jetbridge token create', put it into the token file and start again"
            ) from error

    async def heartbeat(
        self, agent: str, credential: str, body: HeartbeatRequest, limit_seconds: float
    ) -> HeartbeatResponse:
        """Say what the agent believes and learn what is so, each step within ``limit_seconds``."""
        path = f"/v1/agents/{agent}/heartbeat"
        within = Limits(connect_seconds=limit_seconds, answer_seconds=limit_seconds)
        return await self._post(path, credential, body, HeartbeatResponse, within=within)

    async def poll(self, agent: str, credential: str, body: PollRequest) -> PollResponse:
        """Ask for work; held by the gateway for up to ``body.wait_seconds``."""
        held_for = body.wait_seconds + POLL_MARGIN_SECONDS
        path = f"/v1/agents/{agent}/poll"
        return await self._post(path, credential, body, PollResponse, within=limits(held_for))

    async def goodbye(self, agent: str, credential: str, body: GoodbyeRequest) -> GoodbyeResponse:
        """Say that this process ends and nothing of it runs any more."""
        return await self._post(f"/v1/agents/{agent}/goodbye", credential, body, GoodbyeResponse)

    async def accept(self, lease: str, credential: str) -> AcceptResponse:
        """Take an offer. Asking again after a lost answer is safe and gives the same answer."""
        return await self._post(f"/v1/leases/{lease}/accept", credential, AcceptRequest(), AcceptResponse)

    async def report(self, lease: str, credential: str, body: ReportRequest) -> ReportResponse:
        """Say how a lease's workload ended. Asking again after a lost answer is safe."""
        return await self._post(f"/v1/leases/{lease}/report", credential, body, ReportResponse)

    async def execution(
        self, token: str, method: str, target: str, *, headers: Mapping[str, str], body: bytes
    ) -> int:
        """
        Make one call of Airflow's Execution API with a lease's token and return the status of its answer.

        ``target`` is path and query below ``/execution/``. Raises when nobody took the call: then and only
        then another try may help.
        """
        url = f"{self._gateway}/execution/{target}"
        try:
            answer = await self._http.send(method, url, headers_with(token, headers), body, limits())
        except NoAnswerError as error:
            raise GatewayUnreachableError(self._why_unreachable(error)) from error
        status = answer.status
        if status in _NOBODY_TOOK_IT:
            raise GatewayUnavailableError(f"{method} /execution/… answered {status}")
        if status >= 400 and "json" not in answer.content_type:
            raise NotAGatewayError(f"{method} /execution/… answered {status} without JSON: a proxy's?")
        return status

    async def _post(
        self,
        path: str,
        bearer: str,
        body: Request,
        answer: type[A],
        *,
        within: Limits | None = None,
    ) -> A:
        content = await self._send(path, bearer, _encoder.encode(body), within or limits())
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.DecodeError as error:
            raise NotAGatewayError(
                f"{path} answered 200 with something else than asked for: {error}"
            ) from error

    async def _send(self, path: str, bearer: str, content: bytes, within: Limits) -> bytes:
        headers = headers_with(bearer)
        try:
            with http_client("POST", _template(path), urlsplit(self._gateway).netloc) as span:
                headers |= trace_headers()
                answer = await self._http.send("POST", self._gateway + path, headers, content, within)
                http_status(span, answer.status)
        except NoAnswerError as error:
            raise GatewayUnreachableError(self._why_unreachable(error)) from error
        if answer.status != HTTPStatus.OK:
            raise self._error(path, answer)
        return answer.body

    def _why_unreachable(self, error: NoAnswerError) -> str:
        reason = str(error)
        text = f"{urlsplit(self._gateway).netloc} did not answer: {reason}"
        if "CERTIFICATE_REQUIRED" in reason:
            text += "; the gateway wants a client certificate: --client-cert-file and --client-key-file"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            text += "; give the CA that signed the gateway's certificate with --ca-file"
        return text

    def _error(self, path: str, answer: Answer) -> GatewayError:
        status = answer.status
        problem = _problem(answer)
        if problem is None:
            return NotAGatewayError(
                f"{path} answered {status} without a problem document: "
                f"is {self._gateway} the gateway, or a proxy in front of it?"
            )
        text = f"{problem.title} ({problem.detail})" if problem.detail else problem.title
        if status >= 500 or status in _TRY_LATER:
            return GatewayUnavailableError(text)
        return _BY_PROBLEM.get(problem.type, RequestRefusedError)(text)


def _template(path: str) -> str:
    """Return a path of ours with what is named in it left out: ``/v1/leases/{lease}/accept``."""
    parts = path.split("/")
    if len(parts) > _ID_SEGMENT:
        parts[_ID_SEGMENT] = "{lease}" if parts[_ID_SEGMENT - 1] == "leases" else "{name}"
    return "/".join(parts)


def _problem(answer: Answer) -> Problem | None:
    try:
        problem: Any = msgspec.json.decode(answer.body, type=Problem)
    except msgspec.DecodeError:
        return None
    return problem if problem.type.startswith(TYPE_PREFIX) else None
