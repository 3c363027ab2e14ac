"""A sentinel's calls to the gateway; everything else about them is ``jetbridge.agent``'s."""

from __future__ import annotations

from pathlib import Path

from jetbridge.agent.gateway_client import GatewayClient
from jetbridge.agent.link import Link
from jetbridge.agent.session import Session
from jetbridge.contracts.api import RegisterRequest
from jetbridge.contracts.sites import (
    AttestDeathRequest,
    AttestDeathResponse,
    SiteReportRequest,
    SiteReportResponse,
)


class SentinelClient(GatewayClient):
    """The operations of sentinels, one attempt each."""

    async def attest_death(self, name: str, credential: str, body: AttestDeathRequest) -> AttestDeathResponse:
        """Say that a process of an agent is gone."""
        return await self._post(f"/v1/agents/{name}/deaths", credential, body, AttestDeathResponse)

    async def report_site(self, name: str, credential: str, body: SiteReportRequest) -> SiteReportResponse:
        """Say what is seen of the site."""
        return await self._post(f"/v1/agents/{name}/site", credential, body, SiteReportResponse)


class SentinelSession(Session):
    """The same calls, repeated until answered, with a credential that is renewed meanwhile."""

    def __init__(
        self, client: SentinelClient, link: Link, identity: RegisterRequest, token_file: Path
    ) -> None:
        super().__init__(client, link, identity, token_file)
        self._sentinel_client = client
        self._name = identity.name

    async def attest_death(self, body: AttestDeathRequest) -> AttestDeathResponse:
        """Say that a process of an agent is gone; raises :class:`RequestRefusedError`."""
        return await self._call(
            "attest death", lambda it: self._sentinel_client.attest_death(self._name, it, body)
        )

    async def report_site(self, body: SiteReportRequest) -> SiteReportResponse:
        """Say what is seen of the site."""
        return await self._call(
            "report site", lambda it: self._sentinel_client.report_site(self._name, it, body)
        )
