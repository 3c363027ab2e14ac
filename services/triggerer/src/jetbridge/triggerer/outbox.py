"""Events that the plane has not acknowledged. Filled by the supervisor, emptied by the network's thread."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import Lock

from jetbridge.contracts.triggering import (
    MAX_TRACEBACK_LINE,
    MAX_TRACEBACK_LINES,
    TriggerEvent,
)

BATCH_EVENTS = 64
"""The plane takes a request's events in one transaction, about a second of work that all of them wait for."""

BATCH_BYTES = 1 << 20
"""Events of one request; with base64 it stays well below what gateways take."""

MAX_BYTES = 64 << 20
"""
Of events without a task, those that find this much waiting are dropped.

A trigger of a task fires once; one that watches an asset may fire for ever while the plane is away.
"""


@dataclass(frozen=True)
class Outgoing:
    """An event and what the runner waits to hear of it (see ``TriggerEventEntry.persist_seq`` in Airflow)."""

    body: TriggerEvent
    persist_seq: int | None = None

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        lines = self.body.traceback or ()
        return 64 + len(self.body.event or b"") + sum(map(len, lines))


class Outbox:
    """Events in the order of their numbers, until each is acknowledged."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[Outgoing] = deque()
        self._triggers: Counter[int] = Counter()
        self._numbers = count(1)
        self._bytes = 0
        self.on_change: Callable[[], None] = _nobody

    def reserve(self, trigger_id: int) -> None:
        """Name a trigger in ``triggers`` while its event is being prepared, until :meth:`unreserve`."""
        with self._lock:
            self._triggers[trigger_id] += 1

    def unreserve(self, trigger_id: int) -> None:
        """End what :meth:`reserve` began. The event, if there is one, is put first."""
        with self._lock:
            self._release(trigger_id)

    def put_event(self, trigger_id: int, event: bytes, persist_seq: int | None = None) -> None:
        """Add what a trigger fired."""
        self._put(trigger_id, event=event, persist_seq=persist_seq)

    def put_failure(self, trigger_id: int, traceback: list[str] | None) -> None:
        """Add that a trigger ended without firing. Of a long traceback the end is kept: it has the error."""
        lines = [line[:MAX_TRACEBACK_LINE] for line in (traceback or [])[-MAX_TRACEBACK_LINES:]]
        self._put(trigger_id, traceback=tuple(lines))

    def has_room(self) -> bool:
        """Say whether an event that nobody waits for may be added."""
        with self._lock:
            return self._bytes < MAX_BYTES

    def batch(self, limit: int = BATCH_EVENTS) -> tuple[Outgoing, ...]:
        """Return the first events, as many as fit into a request."""
        with self._lock:
            chosen: list[Outgoing] = []
            room = BATCH_BYTES
            for outgoing in self._waiting:
                room -= outgoing.size
                if chosen and (room < 0 or len(chosen) == limit):
                    break
                chosen.append(outgoing)
            return tuple(chosen)

    def acknowledged(self, through: int) -> list[int]:
        """Forget all events up to a number; return what the runner is to hear of them."""
        told = []
        with self._lock:
            while self._waiting and self._waiting[0].body.sequence <= through:
                outgoing = self._waiting.popleft()
                self._bytes -= outgoing.size
                self._release(outgoing.body.trigger_id)
                if outgoing.persist_seq is not None:
                    told.append(outgoing.persist_seq)
        return told

    def triggers(self) -> set[int]:
        """Return the triggers that have something here."""
        with self._lock:
            return set(self._triggers)

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def _put(
        self,
        trigger_id: int,
        *,
        event: bytes | None = None,
        traceback: tuple[str, ...] | None = None,
        persist_seq: int | None = None,
    ) -> None:
        with self._lock:  # numbered and added in one step, so that numbers ascend
            body = TriggerEvent(
                sequence=next(self._numbers), trigger_id=trigger_id, event=event, traceback=traceback
            )
            outgoing = Outgoing(body, persist_seq)
            self._waiting.append(outgoing)
            self._triggers[trigger_id] += 1
            self._bytes += outgoing.size
        self.on_change()

    def _release(self, trigger_id: int) -> None:
        self._triggers[trigger_id] -= 1
        if self._triggers[trigger_id] <= 0:
            del self._triggers[trigger_id]


def _nobody() -> None:
    """Be nobody's concern."""
