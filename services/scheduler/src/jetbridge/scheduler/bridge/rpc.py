"""
Operations, and the way from a request's bytes to its answer's.

Whatever arrives is answered: with the operation's result, or with :class:`Refused` and the reason. A
request that cannot be used is counted and published as an event, and the next one is handled as if it
had not been. Nothing is kept between two requests, so any replica can take any of them. Imports no Airflow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from jetbridge.bus.errors import BusError
from jetbridge.bus.rpc import ClaimCheck, RpcRefusedError
from jetbridge.bus.spans import receiving, traceparent_of
from jetbridge.contracts.envelope import Body, MessageError, UnknownMessageError, read_body, seal
from jetbridge.contracts.rpc import AGENT_HEADER, TIMEOUT_HEADER, RefusalCode, Refused, RequestSetAside
from jetbridge.scheduler.bridge.errors import RefusedError, is_outage
from jetbridge.scheduler.bridge.metrics import BridgeMetrics

log = structlog.get_logger(__name__)

Q = TypeVar("Q", bound=Body)
Publish = Callable[[RequestSetAside], Awaitable[None]]
Nudge = Callable[[], Awaitable[None]]
"""Wakes the schedulers, once what they should see is committed."""

_SET_ASIDE = frozenset(
    {
        RefusalCode.MALFORMED,
        RefusalCode.UNKNOWN_MESSAGE,
        RefusalCode.TOO_LARGE,
        RefusalCode.UNSUPPORTED,
        RefusalCode.UNUSABLE,
        RefusalCode.INTERNAL,
    }
)
"""Refusals somebody should know of. The others are normal answers, or already known (an outage)."""

_LATE = "late"
_MAX_DETAIL = 2000
"""A database's error text may quote the whole statement."""


@dataclass(frozen=True)
class Operation(Generic[Q]):
    """
    One thing the bridge does: ``rpc.<area>.<operation>``.

    ``handle`` may raise :class:`RefusedError`. It may be called again with the same request, at the same
    time or later, in this or another process, and that must change nothing more.
    """

    subject: str
    request: type[Q]
    handle: Callable[[Q], Awaitable[Body]]


class Dispatcher:
    """Turns requests into answers for one operation after another, up to ``threads`` at a time."""

    def __init__(
        self, claim_check: ClaimCheck, metrics: BridgeMetrics, publish: Publish, threads: int
    ) -> None:
        self._claim_check = claim_check
        self._metrics = metrics
        self._publish = publish
        self._turn = asyncio.Semaphore(threads)
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def dispatch(
        self, operation: Operation[Any], data: bytes, headers: Mapping[str, str]
    ) -> bytes | None:
        """Return the answer as it is to be sent; None when the requester has long stopped waiting."""
        arrived = time.monotonic()
        self._begin()
        try:
            async with self._turn:
                if time.monotonic() - arrived > _patience(headers):
                    self._count(operation, _LATE, arrived)
                    return None
                with receiving(operation.subject, "process", traceparent_of(headers)):
                    answer, outcome = await self._answer(operation, data, headers.get(AGENT_HEADER, ""))
            self._count(operation, outcome, arrived)
            return await self._sealed(answer)
        finally:
            self._end()

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    async def _answer(self, operation: Operation[Any], data: bytes, agent: str) -> tuple[Body, str]:
        try:
            envelope = await self._claim_check.read(data)
            with structlog.contextvars.bound_contextvars(
                operation=operation.subject, agent=agent, request=envelope.id
            ):
                return await operation.handle(read_body(envelope, operation.request)), "done"
        except Exception as exc:  # noqa: BLE001 - every request is answered, and the next one handled
            refusal = _refusal(exc)
        if refusal.code in _SET_ASIDE:
            await self._set_aside(operation, agent, refusal)
        return Refused(code=refusal.code.value, detail=refusal.detail), refusal.code.value

    async def _set_aside(self, operation: Operation[Any], agent: str, refusal: RefusedError) -> None:
        log.warning(
            "request set aside",
            operation=operation.subject,
            agent=agent,
            code=refusal.code.value,
            detail=refusal.detail,
            exc_info=refusal.__cause__ if refusal.code is RefusalCode.INTERNAL else None,
        )
        event = RequestSetAside(
            subject=operation.subject, agent=agent, code=refusal.code.value, detail=refusal.detail
        )
        try:
            await self._publish(event)
        except BusError as exc:  # the answer matters more than the event
            log.warning("event lost", error=str(exc))

    async def _sealed(self, answer: Body) -> bytes:
        try:
            return (await self._claim_check.check_in(seal(answer))).data
        except RpcRefusedError as exc:
            return seal(Refused(code=exc.code.value, detail=exc.detail))
        except BusError as exc:
            return seal(Refused(code=RefusalCode.UNAVAILABLE.value, detail=str(exc)))

    def _count(self, operation: Operation[Any], outcome: str, arrived: float) -> None:
        self._metrics.requests.labels(operation.subject, outcome).inc()
        self._metrics.seconds.labels(operation.subject).observe(time.monotonic() - arrived)

    def _begin(self) -> None:
        self._in_flight += 1
        self._metrics.waiting.set(self._in_flight)
        self._idle.clear()

    def _end(self) -> None:
        self._in_flight -= 1
        self._metrics.waiting.set(self._in_flight)
        if not self._in_flight:
            self._idle.set()


def _refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    code, detail = _explain(error)
    refusal = RefusedError(code, detail[:_MAX_DETAIL])
    refusal.__cause__ = error
    return refusal


def _explain(error: Exception) -> tuple[RefusalCode, str]:
    if isinstance(error, UnknownMessageError):
        return RefusalCode.UNKNOWN_MESSAGE, str(error)
    if isinstance(error, MessageError):
        return RefusalCode.MALFORMED, str(error)
    if isinstance(error, BusError):
        return RefusalCode.UNAVAILABLE, str(error)
    if is_outage(error):
        return RefusalCode.UNAVAILABLE, f"the metadata database cannot do this now: {type(error).__name__}"
    return RefusalCode.INTERNAL, f"the bridge failed: {type(error).__name__}"


def _patience(headers: Mapping[str, str]) -> float:
    try:
        return float(headers.get(TIMEOUT_HEADER, "inf"))
    except ValueError:
        return float("inf")
