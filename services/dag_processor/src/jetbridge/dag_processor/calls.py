"""A Dag processor's calls to the gateway; everything else about them is ``jetbridge.agent``'s."""

from __future__ import annotations

import asyncio
import time

from jetbridge.agent.errors import GatewayUnreachableError
from jetbridge.agent.gateway_client import GatewayClient, headers_with, limits
from jetbridge.agent.http import NoAnswerError
from jetbridge.agent.link import Link
from jetbridge.agent.session import Session
from jetbridge.agent.settings import AgentSettings
from jetbridge.contracts.api import RegisterRequest
from jetbridge.contracts.dag_processing import ClaimBundlesRequest, ClaimBundlesResponse

_MARGIN_SECONDS = 5.0
"""How much longer than one try the manager waits: time to register anew, or for a second try."""


class DagProcessorClient(GatewayClient):
    """The operations about bundles, one attempt each."""

    async def claim(self, agent: str, credential: str, body: ClaimBundlesRequest) -> ClaimBundlesResponse:
        """Give back, take and keep bundles."""
        return await self._post(f"/v1/agents/{agent}/bundles/claim", credential, body, ClaimBundlesResponse)

    async def relay(
        self, agent: str, credential: str, operation: str, body: bytes, answer_seconds: float
    ) -> bytes:
        """Pass on what the manager asks, and return the answer as it came."""
        path = f"/v1/agents/{agent}/bundles/{operation}"
        return await self._send(path, credential, body, limits(answer_seconds))

    async def read(self, agent: str, credential: str, target: str) -> tuple[int, bytes]:
        """Read from Airflow's Execution API; returns its status and content, whatever they are."""
        path = f"/v1/agents/{agent}/airflow/{target}"
        headers = headers_with(credential)
        try:
            answer = await self._http.send("GET", self._gateway + path, headers, b"", limits())
        except NoAnswerError as error:
            raise GatewayUnreachableError(self._why_unreachable(error)) from error
        if "problem+json" in answer.content_type:  # the gateway's, not Airflow's
            raise self._error(path, answer)
        return answer.status, answer.body


class DagProcessorSession(Session):
    """The same calls with a credential that is renewed meanwhile."""

    def __init__(
        self, client: DagProcessorClient, link: Link, identity: RegisterRequest, settings: AgentSettings
    ) -> None:
        super().__init__(client, link, identity, settings.token_file)
        self._bundle_client = client
        self._agent = identity.name

    async def claim(self, body: ClaimBundlesRequest) -> tuple[float, ClaimBundlesResponse]:
        """
        Give back, take and keep bundles, trying until there is an answer.

        Returns it with when it was asked for (monotonic seconds): what it grants begins no earlier.
        """

        async def call(credential: str) -> tuple[float, ClaimBundlesResponse]:
            asked = time.monotonic()
            return asked, await self._bundle_client.claim(self._agent, credential, body)

        return await self._call("claim bundles", call)

    async def read(self, target: str, wait_seconds: float) -> tuple[int, bytes]:
        """Read from Airflow's Execution API; raises as :meth:`relay`."""
        async with asyncio.timeout(wait_seconds):
            return await self._call("read", lambda it: self._bundle_client.read(self._agent, it, target))

    async def relay(self, operation: str, body: bytes, wait_seconds: float) -> bytes:
        """
        Pass on what the manager asks, trying until there is an answer or the manager stops waiting.

        Raises a :class:`GatewayError` that is final, or :class:`TimeoutError`.
        """
        async with asyncio.timeout(wait_seconds):
            return await self._call(
                operation,
                lambda it: self._bundle_client.relay(
                    self._agent, it, operation, body, max(1.0, wait_seconds - _MARGIN_SECONDS)
                ),
            )
