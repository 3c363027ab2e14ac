"""
What the supervisor's thread and the network's thread leave for each other.

The supervisor's loop sleeps in ``select``; a socket wakes it. The network's thread is told through callbacks
that it sets itself. Neither ever waits for the other.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from threading import Lock

from jetbridge.contracts.triggering import TriggerPollResponse, TriggerStart
from jetbridge.telemetry.alive import touch_pulse
from jetbridge.triggerer.outbox import Outbox


class Exchange:
    """The triggers of this agent, news about them, and the wish to stop."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: set[int] = set()
        self._news: deque[TriggerPollResponse] = deque()
        self._persisted: deque[int] = deque()
        self._wakers = socket.socketpair()
        for end in self._wakers:
            end.settimeout(0)
        self._came_round = time.monotonic()
        self.outbox = Outbox()
        self.stopping = False
        self.error: Exception | None = None
        """Why the network's thread cannot go on."""

    # -- the network's side

    def running(self) -> tuple[int, ...]:
        """Return every trigger this agent has anything to do with."""
        with self._lock:
            held = set(self._held)
        return tuple(sorted(held | self.outbox.triggers()))

    def tell(self, answer: TriggerPollResponse) -> bool:
        """Leave news for the supervisor; say whether there was any."""
        with self._lock:
            start: list[TriggerStart] = []
            for one in answer.start:
                if one.trigger_id not in self._held:  # otherwise it is still ending; it is offered again
                    self._held.add(one.trigger_id)
                    start.append(one)
            ending = any(trigger_id in self._held for trigger_id in (*answer.cancel, *answer.release))
        if not start and not ending:
            return False
        self._news.append(
            TriggerPollResponse(start=tuple(start), cancel=answer.cancel, release=answer.release)
        )
        self.wake()
        return bool(start)

    def persisted(self, sequences: list[int]) -> None:
        """Leave word that events were stored, for triggers that wait for that."""
        if sequences:
            self._persisted.extend(sequences)
            self.wake()

    def silent_seconds(self) -> float:
        """Return how long ago the supervisor's loop came round."""
        return time.monotonic() - self._came_round

    # -- the supervisor's side

    def news(self) -> list[TriggerPollResponse]:
        """Take what was left."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def newly_persisted(self) -> list[int]:
        """Take what was left about stored events."""
        return [self._persisted.popleft() for _ in range(len(self._persisted))]

    def finished(self, trigger_ids: list[int]) -> None:
        """Forget triggers. What they fired must be in the outbox by now, or they would be started again."""
        with self._lock:
            self._held.difference_update(trigger_ids)

    def came_round(self) -> None:
        """Note that the supervisor's loop is not stuck."""
        self._came_round = time.monotonic()
        touch_pulse()

    @property
    def waker(self) -> socket.socket:
        """Return the socket that becomes readable when there is news."""
        return self._wakers[0]

    def awake(self) -> None:
        """Make the socket unreadable again."""
        with contextlib.suppress(BlockingIOError):
            self._wakers[0].recv(4096)

    # -- both sides

    def wake(self) -> None:
        """Wake the supervisor's loop; safe in a signal handler."""
        with contextlib.suppress(OSError):  # full: it is awake already; closed: there is nobody to wake
            self._wakers[1].send(b"!")

    def close(self) -> None:
        """Free the sockets, when both threads are done."""
        for end in self._wakers:
            end.close()

    def stop(self, error: Exception | None = None) -> None:
        """Have the agent stop, because it was asked to or because of an error."""
        self.error = self.error or error
        self.stopping = True
        self.wake()
