"""
Whose assets are whose, asked of the bridge, which can read Dags.

An answer is believed for some seconds: a task that reads its asset's store in a loop should not have its Dag
read again each time, and its inlets and outlets hardly ever change while it runs.
"""

from __future__ import annotations

import time
from collections import OrderedDict

import structlog

from jetbridge.bus.errors import BusError
from jetbridge.bus.rpc import RpcClient, RpcRefusedError
from jetbridge.contracts.assets import FIND_OWN, FindOwnAssets, OwnAssets
from jetbridge.contracts.envelope import MessageError
from jetbridge.gateway.execution_rules import Asker
from jetbridge.gateway.problems import unavailable

log = structlog.get_logger(__name__)

BELIEVED_SECONDS = 10.0
ANSWER_SECONDS = 15.0
"""Limit of one question to the bridge; below the 20 s for which agents wait."""

_REMEMBERED = 10_000


class AssetDesk:
    """Knows for a while what it was told."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc
        self._known: OrderedDict[FindOwnAssets, tuple[OwnAssets, float]] = OrderedDict()

    async def own(self, asker: Asker, agent: str) -> OwnAssets:
        """Return the asker's assets; raises the problem to answer with."""
        by_task = asker.task_instance is not None
        question = FindOwnAssets(
            task_instance=asker.task_instance, trigger_id=None if by_task else asker.trigger
        )
        known, until = self._known.get(question, (None, 0.0))
        if known is not None and time.monotonic() < until:
            return known
        answer = await self._ask(question, agent)
        self._known[question] = answer, time.monotonic() + BELIEVED_SECONDS
        self._known.move_to_end(question)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return answer

    async def _ask(self, question: FindOwnAssets, agent: str) -> OwnAssets:
        try:
            return await self._rpc.ask(
                FIND_OWN, question, OwnAssets, agent=agent, timeout_seconds=ANSWER_SECONDS
            )
        except (RpcRefusedError, BusError, MessageError) as exc:
            log.warning("bridge.unavailable", subject=FIND_OWN, error=str(exc))
            raise unavailable("The plane's bridge did not say whose the asset is. Try again.") from exc
