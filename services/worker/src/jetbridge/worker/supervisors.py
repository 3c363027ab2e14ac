"""
The fork server's side of its supervisors: a process each, and a channel for its orders and their results.

A supervisor that is as it was before its task (see ``supervisor`` and ``residue``) takes another of the same
Dag: that saves a fork, and a copy of each page of shared memory that is written to. Never of another Dag: a
task is a copy of its supervisor, and finds in its memory what is left of the tasks before it. The one that
waited least is taken first, so that after a burst the others go.
"""

from __future__ import annotations

import sched
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from jetbridge.worker import frames
from jetbridge.worker.frames import Result, Start

IDLE_SECONDS = 2.0
"""How long a supervisor waits for another workload: it holds some 10 MB of its own."""

MAX_AGE_SECONDS = 600.0
"""A supervisor older than this takes no more: what a library leaks is gone with it."""


@dataclass(eq=False)
class Supervisor:
    """One supervisor process. ``result`` is how its workload ended, when it said so and is about to end."""

    pid: int
    channel: socket.socket
    dag_id: str
    born: float = field(default_factory=time.monotonic)
    orders: int = 0
    result: Result | None = None

    def hand(self, order: int) -> bool:
        """Hand it an order; says whether it could be reached."""
        try:
            frames.hand_order(self.channel, order)
        except OSError:
            return False
        self.orders += 1
        return True

    def listen(self) -> Result | None:
        """Return what it says now, if anything; the last thing it says is kept in ``result``."""
        with suppress(BlockingIOError, ConnectionError):
            said = frames.decode_result(self.channel.recv(frames.MAX_FRAME_BYTES))
            self.result = said or self.result
            return said
        return None

    def dismiss(self) -> None:
        """Have it end by itself, which it does as soon as it waits for an order."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)


class WaitingSupervisors:
    """
    Supervisors without a workload.

    :param max_orders: workloads that one supervisor may run; 1 keeps none
    """

    def __init__(self, later: sched.scheduler, max_orders: int) -> None:
        self._later = later
        self._max_orders = max_orders
        self._waiting: list[Supervisor] = []

    def take(self, command: Start, order: int) -> Supervisor | None:
        """Hand an order to one that served its Dag, and return it; None if there is none."""
        if command.good_seconds:
            return None  # theirs are leases without time of their own, see ``kernel_fence``
        for supervisor in [one for one in reversed(self._waiting) if one.dag_id == command.dag_id]:
            self._waiting.remove(supervisor)
            if supervisor.hand(order):
                return supervisor
            supervisor.dismiss()
        return None

    def make_room(self) -> None:
        """Send the one home that waited longest: there are never more than worked at the same time."""
        if self._waiting:
            self._waiting.pop(0).dismiss()

    def put(self, supervisor: Supervisor) -> None:
        """Keep a supervisor for a while, unless it served enough."""
        age = time.monotonic() - supervisor.born
        if not supervisor.dag_id or supervisor.orders >= self._max_orders or age > MAX_AGE_SECONDS:
            supervisor.dismiss()
            return
        supervisor.result = None
        self._waiting.append(supervisor)
        self._later.enter(IDLE_SECONDS, 1, self._send_home, (supervisor, supervisor.orders))

    def remove(self, supervisor: Supervisor) -> None:
        """Forget one that has ended."""
        with suppress(ValueError):
            self._waiting.remove(supervisor)

    def _send_home(self, supervisor: Supervisor, orders: int) -> None:
        if supervisor in self._waiting and supervisor.orders == orders:
            self._waiting.remove(supervisor)
            supervisor.dismiss()
