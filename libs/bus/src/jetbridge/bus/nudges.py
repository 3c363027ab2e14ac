"""
Nudges: "there is something to schedule now", from whoever made it so to every scheduler's executor.

Plain NATS, kept by nobody: a scheduler that misses one looks by itself within a second, as it always did.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from jetbridge.bus.connection import Bus
from jetbridge.contracts.subjects import NUDGE_SUBJECT


async def nudge(bus: Bus) -> None:
    """Tell all schedulers; not being able to is harmless."""
    if not bus.client.is_connected:  # nats-py would keep it and send it when it means nothing any more
        return
    with suppress(NatsError, OSError):
        await bus.client.publish(NUDGE_SUBJECT)


async def on_nudge(bus: Bus, listener: Callable[[], None]) -> None:
    """Call ``listener`` in the loop at each nudge, for as long as the connection lives."""

    async def heard(_message: Msg) -> None:
        listener()

    await bus.client.subscribe(NUDGE_SUBJECT, cb=heard)
