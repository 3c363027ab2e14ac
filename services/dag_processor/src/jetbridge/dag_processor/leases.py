"""Which bundles are this agent's now, asked for again and again, and believed no longer than they last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog

from jetbridge.agent.session import jittered
from jetbridge.agent.waiting import wait_at_most
from jetbridge.contracts.dag_processing import ClaimBundlesRequest, ClaimBundlesResponse, HeldBundle
from jetbridge.dag_processor.calls import DagProcessorSession

log = structlog.get_logger(__name__)


class BundleLeases:
    """
    The agent's leases of bundles.

    A lease counts from when it was asked for and is over here before NATS ends it there, so two agents
    never both take a bundle for theirs.
    """

    def __init__(self, session: DagProcessorSession) -> None:
        self._session = session
        self._wanted: tuple[str, ...] = ()
        self._epochs: dict[str, int] = {}
        self._until = 0.0
        self._standby: dict[str, str] = {}
        self.opened: tuple[str, ...] = ()
        """Classes of data that policies let this agent send as they are."""
        self._changed = asyncio.Event()

    @property
    def epochs(self) -> Mapping[str, int]:
        """Return the bundles that are this agent's now, with their epochs."""
        return self._epochs if time.monotonic() < self._until else {}

    def want(self, bundles: tuple[str, ...]) -> None:
        """Ask for these bundles from now on, at once, and give back any other."""
        self._wanted = bundles
        self._changed.set()

    async def run(self) -> None:
        """Take and keep what is wanted, for as long as the agent runs."""
        while True:
            self._changed.clear()
            await self._claim()
            await wait_at_most(self._changed, jittered(self._session.plan.heartbeat_interval_seconds))

    async def give_back(self, limit_seconds: float) -> None:
        """Give everything back, so that nobody has to wait for it to expire; failing is harmless."""
        self._wanted = ()
        try:
            async with asyncio.timeout(limit_seconds):
                await self._claim()
        except TimeoutError:
            log.warning("bundles were not given back; others get them when the leases end")

    async def _claim(self) -> None:
        wanted = self._wanted
        release = tuple(
            HeldBundle(bundle=bundle, epoch=epoch)
            for bundle, epoch in self._epochs.items()
            if bundle not in wanted
        )
        # Not ours from the moment we say so, whenever the answer comes.
        self._epochs = {bundle: epoch for bundle, epoch in self._epochs.items() if bundle in wanted}
        if not wanted and not release:
            return
        asked, answer = await self._session.claim(ClaimBundlesRequest(bundles=wanted, release=release))
        self._take(asked, answer, wanted)

    def _take(self, asked: float, answer: ClaimBundlesResponse, wanted: tuple[str, ...]) -> None:
        epochs = {held.bundle: held.epoch for held in answer.held if held.bundle in wanted}
        standby = {other.bundle: other.agent for other in answer.standby}
        for bundle in epochs.keys() - self._epochs.keys():
            log.info("bundle is ours", bundle=bundle, epoch=epochs[bundle])
        for bundle in self._epochs.keys() - epochs.keys():
            log.warning("bundle is lost", bundle=bundle, epoch=self._epochs[bundle])
        for bundle, agent in standby.items():
            if self._standby.get(bundle) != agent:
                log.info("bundle is on standby", bundle=bundle, active_agent=agent)
        self.opened = answer.opened
        self._epochs, self._standby, self._until = epochs, standby, asked + answer.lease_seconds
