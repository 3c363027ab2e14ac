"""The two conversations every agent keeps up with the gateway: heartbeats and long polls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Protocol

from jetbridge.agent.lease_clock import lease_time
from jetbridge.agent.session import Session, jittered
from jetbridge.agent.stop import StopRequests
from jetbridge.agent.waiting import running, wait_at_most
from jetbridge.contracts.api import (
    FENCE_SHARE,
    MAX_WAIT_SECONDS,
    HeartbeatRequest,
    Offer,
    PollRequest,
    PollResponse,
)

FULL_PATIENCE_SECONDS = 1.0
"""
How long an agent without a free slot waits for one before it polls for orders to stop alone.

Such a poll has to be given up, with its connection, when a slot becomes free. Tasks shorter than this
never cause that; longer ones pay it once each.
"""

SHORTEST_POLL_SECONDS = 1.0
"""A poll that is answered with nothing sooner than this was not held; the next one waits for the rest."""


class Role(Protocol):
    """What a kind of agent plugs into the loops. Nothing here blocks or raises."""

    slots_changed: asyncio.Event
    """Set whenever ``free_slots`` may have changed; cleared by the poll loop alone."""

    state_changed: asyncio.Event
    """Set when the gateway should hear from this agent before the next heartbeat is due."""

    @property
    def draining(self) -> bool:
        """Whether the agent takes no more work."""
        ...

    def free_slots(self) -> int:
        """Return how many offers could be accepted now; 0 while draining or not ready."""
        ...

    def leases(self) -> tuple[str, ...]:
        """Return the leases whose accept was confirmed and whose report was not."""
        ...

    def offered(self, offers: Iterable[Offer]) -> None:
        """Take note of offers; whatever is not accepted goes to another agent."""
        ...

    def lost(self, leases: Iterable[str]) -> None:
        """Stop the work of leases this agent does not hold any more; unknown ones are ignored."""
        ...

    def held(self, leases: Iterable[str]) -> None:
        """Compare with all leases the gateway says this agent holds; it may know more than the agent."""
        ...

    def prolonged(self, sent_at: float, until: float) -> None:
        """
        Note that a heartbeat sent at ``sent_at`` was recorded, so that leases are good until ``until``.

        What still runs later must be killed, unless its lease was given for longer. Both by ``lease_clock``.
        """
        ...


async def heartbeat_loop(session: Session, role: Role, stop: StopRequests) -> None:
    """Send a heartbeat every interval, and at once when the role's state changes; act on the answers."""
    sent_at = 0.0

    def heartbeat() -> HeartbeatRequest:
        nonlocal sent_at
        sent_at = lease_time()
        return HeartbeatRequest(free_slots=role.free_slots(), leases=role.leases(), draining=role.draining)

    while True:
        role.state_changed.clear()
        request, answer = await session.heartbeat(heartbeat)
        if answer.recorded:
            # Counted from the sending: whenever the plane begins to count, it is later than that.
            role.prolonged(sent_at, sent_at + FENCE_SHARE * session.plan.lease_seconds)
        # Only what was named can be missing: a lease accepted since then is simply not in this answer.
        role.lost(set(request.leases) - set(answer.leases))
        role.held(answer.leases)
        stop.ordered(answer.orders)
        interval = jittered(session.plan.heartbeat_interval_seconds)
        # From the sending, as the leases are: an answer that came late has not prolonged them by much.
        await wait_at_most(role.state_changed, sent_at + interval - lease_time())


async def poll_loop(session: Session, role: Role, stop: StopRequests) -> None:
    """Keep a poll open, for offers while there are free slots and for orders always."""
    while True:
        role.slots_changed.clear()
        if role.free_slots() == 0:
            await wait_at_most(role.slots_changed, FULL_PATIENCE_SECONDS)
        begun = time.monotonic()
        answer = await _poll(session, role)
        if answer is None:
            continue
        role.lost(answer.stop)
        role.offered(answer.offers)
        stop.ordered(answer.orders)
        if not answer.offers and not answer.stop:
            not_held = min(SHORTEST_POLL_SECONDS, session.plan.poll_wait_seconds) - (time.monotonic() - begun)
            await wait_at_most(role.slots_changed, not_held)


async def _poll(session: Session, role: Role) -> PollResponse | None:
    """Poll until the answer, or return None as soon as the answer is not what the role needs any more."""
    request = PollRequest(
        free_slots=role.free_slots(),
        leases=role.leases(),
        wait_seconds=min(session.plan.poll_wait_seconds, MAX_WAIT_SECONDS),
    )
    async with running(session.poll(request)) as poll:
        while not poll.done():
            if (request.free_slots == 0) != (role.free_slots() == 0):
                return None
            role.slots_changed.clear()
            async with running(role.slots_changed.wait()) as change:
                await asyncio.wait({poll, change}, return_when=asyncio.FIRST_COMPLETED)
        return poll.result()
