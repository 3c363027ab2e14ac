"""Offers that were made and not yet accepted: each keeps one of its agent's slots occupied."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from jetbridge.bus.topology import OFFER_SECONDS
from jetbridge.contracts.ids import LeaseKey


@dataclass(frozen=True, slots=True)
class _Offer:
    agent: str
    lease: str
    deadline: float


class Outstanding:
    """
    Open offers by agent, of this gateway and (through the mirror of workloads) of every other one.

    An offer leaves when its record moves on, or after ``OFFER_SECONDS``, when JetStream makes it anew.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_workload: dict[str, _Offer] = {}  # in the order of deadlines: all live equally long
        self._by_agent: defaultdict[str, set[str]] = defaultdict(set)

    def count(self, agent: str, counted_already: frozenset[str]) -> int:
        """Return how many offers are open to ``agent``, without the leases it counts itself."""
        return len(self._by_agent.get(agent, frozenset()) - counted_already)

    def add(self, agent: str, lease: LeaseKey) -> None:
        """Note an offer; an earlier one of the same workload is over."""
        text = str(lease)
        known = self._by_workload.get(lease.workload_id)
        if known and known.lease == text:
            return
        self.remove(lease.workload_id)
        self._by_workload[lease.workload_id] = _Offer(agent, text, self._clock() + OFFER_SECONDS)
        self._by_agent[agent].add(text)

    def remove(self, workload_id: str) -> str | None:
        """Forget the offer of a workload; returns the agent it was made to."""
        offer = self._by_workload.pop(workload_id, None)
        if offer is None:
            return None
        leases = self._by_agent[offer.agent]
        leases.discard(offer.lease)
        if not leases:
            del self._by_agent[offer.agent]
        return offer.agent

    def expire(self) -> set[str]:
        """Forget offers past their time; returns the agents that have a slot back."""
        now, agents = self._clock(), set()
        while self._by_workload:
            workload_id, offer = next(iter(self._by_workload.items()))
            if offer.deadline > now:
                break
            self.remove(workload_id)
            agents.add(offer.agent)
        return agents
