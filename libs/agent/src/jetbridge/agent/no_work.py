"""What agents say in heartbeats whose work is not leased from the gateway one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from jetbridge.contracts.api import Offer


class NoWork:
    """
    The :class:`~jetbridge.agent.loops.Role` of an agent that is never offered workloads.

    :param drain: set when the agent is to stop
    :param free_slots: what to say about capacity
    """

    def __init__(self, drain: asyncio.Event, free_slots: Callable[[], int] = lambda: 0) -> None:
        self._drain = drain
        self._free_slots = free_slots
        self.slots_changed = asyncio.Event()
        self.state_changed = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Return whether the agent is stopping."""
        return self._drain.is_set()

    def free_slots(self) -> int:
        """Return what the agent has room for, for people who look at it."""
        return self._free_slots()

    def leases(self) -> tuple[str, ...]:
        """Return nothing: there are no leases of workloads."""
        return ()

    def offered(self, offers: Iterable[Offer]) -> None:
        """Have no use for offers; none are made."""

    def lost(self, leases: Iterable[str]) -> None:
        """Have nothing to lose."""

    def held(self, leases: Iterable[str]) -> None:
        """Have nothing to compare."""

    def prolonged(self, sent_at: float, until: float) -> None:
        """Have nothing that ends then."""
