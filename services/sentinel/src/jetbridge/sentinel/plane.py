"""The loop of the plane sentinel."""

from __future__ import annotations

import asyncio

import structlog
from nats.errors import Error as NatsError

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusError
from jetbridge.sentinel.looking import Lookout
from jetbridge.sentinel.silence import Silence
from jetbridge.sentinel.states import States
from jetbridge.sentinel.verdicts import Verdicts

log = structlog.get_logger(__name__)


async def keep_watch(
    bus: Bus,
    lookout: Lookout,
    verdicts: Verdicts,
    states: States,
    interval_seconds: float,
) -> None:
    """Look, judge and write until cancelled. A failed step proves nothing and is tried again."""
    while True:
        look = await lookout.look(nats_answers=await answers(bus) and verdicts.mirror.ready.is_set())
        silences = verdicts.watch.take(look)
        if look.hearing:
            await _judge(lookout, verdicts, states, silences)
        await asyncio.sleep(interval_seconds)


async def _judge(lookout: Lookout, verdicts: Verdicts, states: States, silences: dict[str, Silence]) -> None:
    try:
        gone = await verdicts.judge(silences)
    except BusError as exc:
        log.warning("sentinel.verdict_not_written", error=str(exc))
        gone = []
    verdicts.metrics.count([states.of(member) for member in silences])
    for member in {*gone, *filter(states.has_left, silences)}:
        verdicts.watch.forget(member)
        await lookout.forget(member)


async def answers(bus: Bus) -> bool:
    """Say whether JetStream answers now."""
    try:
        await bus.js.account_info()
    except (NatsError, TimeoutError, OSError):
        return False
    return True
