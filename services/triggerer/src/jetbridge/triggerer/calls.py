"""A triggerer's calls to the gateway; everything else about them is ``jetbridge.agent``'s."""

from __future__ import annotations

from collections.abc import Awaitable

from jetbridge.agent.gateway_client import POLL_MARGIN_SECONDS, GatewayClient, limits
from jetbridge.agent.link import Link
from jetbridge.agent.session import Session
from jetbridge.agent.settings import AgentSettings
from jetbridge.contracts.api import RegisterRequest
from jetbridge.contracts.triggering import (
    AttachRequest,
    AttachResponse,
    DetachRequest,
    DetachResponse,
    TriggerEventsRequest,
    TriggerEventsResponse,
    TriggerPollRequest,
    TriggerPollResponse,
)

POLL_PAUSE_SECONDS = 2.0
"""
Between tries of a poll. After an outage of the bridge others are heard at once, and who is silent for
``triggerer_lost_after_seconds`` more is taken for lost.
"""


class TriggererClient(GatewayClient):
    """The operations about triggers, one attempt each."""

    async def attach(self, agent: str, credential: str) -> AttachResponse:
        """Begin to run triggers."""
        return await self._post(f"/v1/agents/{agent}/triggerer", credential, AttachRequest(), AttachResponse)

    async def poll_triggers(
        self, agent: str, credential: str, body: TriggerPollRequest
    ) -> TriggerPollResponse:
        """Ask what to run; held by the gateway for up to ``body.wait_seconds``."""
        held_for = body.wait_seconds + POLL_MARGIN_SECONDS
        path = f"/v1/agents/{agent}/triggers/poll"
        return await self._post(path, credential, body, TriggerPollResponse, within=limits(held_for))

    async def post_events(
        self, agent: str, credential: str, body: TriggerEventsRequest
    ) -> TriggerEventsResponse:
        """Say what became of triggers. Asking again after a lost answer is safe."""
        return await self._post(
            f"/v1/agents/{agent}/triggers/events", credential, body, TriggerEventsResponse
        )

    async def detach(self, agent: str, credential: str, body: DetachRequest) -> DetachResponse:
        """Run no more triggers."""
        return await self._post(f"/v1/agents/{agent}/triggerer/end", credential, body, DetachResponse)


class TriggererSession(Session):
    """The same calls, repeated until answered, with a credential that is renewed meanwhile."""

    def __init__(
        self, client: TriggererClient, link: Link, identity: RegisterRequest, settings: AgentSettings
    ) -> None:
        super().__init__(client, link, identity, settings.token_file)
        self._triggerer_client = client
        self._agent = identity.name

    async def attach(self) -> AttachResponse:
        """Begin to run triggers; what this agent ran under an earlier number is others' to take."""
        return await self._call("attach", lambda it: self._triggerer_client.attach(self._agent, it))

    async def poll_triggers(self, body: TriggerPollRequest) -> TriggerPollResponse:
        """Ask what to run; raises :class:`LeaseLostError` when the plane took this agent for lost."""

        def poll(credential: str) -> Awaitable[TriggerPollResponse]:
            return self._triggerer_client.poll_triggers(self._agent, credential, body)

        return await self._call("poll triggers", poll, longest_pause_seconds=POLL_PAUSE_SECONDS)

    async def post_events(self, body: TriggerEventsRequest) -> TriggerEventsResponse:
        """Say what became of triggers; raises :class:`LeaseLostError` likewise."""
        return await self._call(
            "post events", lambda it: self._triggerer_client.post_events(self._agent, it, body)
        )

    async def detach(self, triggerer: int) -> DetachResponse:
        """Run no more triggers."""
        body = DetachRequest(triggerer=triggerer)
        return await self._call("detach", lambda it: self._triggerer_client.detach(self._agent, it, body))
