"""
Which waiting agent gets the next piece of work. Pure bookkeeping: no I/O, no tasks, no time.

An agent waits in every lane it serves. The next workload of a lane goes to the waiting agent with most
free slots, and of several with equally many to the one served longest ago.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from jetbridge.contracts.api import Offer
from jetbridge.gateway.credentials import AgentClaims
from jetbridge.gateway.outstanding import Outstanding

_REMEMBERED_AGENTS = 10_000
"""Turns remembered for fairness; an agent forgotten counts as never served."""

_Entry = tuple[int, int, int, "Waiter"]


@dataclass(eq=False, slots=True, kw_only=True)
class Waiter:
    """
    One held poll.

    ``making`` counts offers to it that are being written; once closed it gets no more of them.
    ``cordoned``: its agent gets no work. ``gone`` says that its client hung up. ``wake`` is called when there
    is something to answer.
    """

    claims: AgentClaims
    lanes: tuple[str, ...]
    free_slots: int
    leases: frozenset[str] = frozenset()
    wake: Callable[[], None] = lambda: None
    offers: list[Offer] = field(default_factory=list)
    stop: set[str] = field(default_factory=set)
    making: int = 0
    open: bool = True
    cordoned: bool = False
    gone: bool = False

    @property
    def agent(self) -> str:
        """Return the agent's name."""
        return self.claims.agent


class Board:
    """All held polls of this gateway."""

    def __init__(self, outstanding: Outstanding) -> None:
        self.outstanding = outstanding
        self._waiters: dict[str, Waiter] = {}
        self._lanes: dict[str, _LaneQueue] = {}
        self._served: OrderedDict[str, int] = OrderedDict()
        self._turns = itertools.count(1)
        self._listeners: list[Callable[[str], None]] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def waiters(self) -> list[Waiter]:
        """Return the open polls."""
        return list(self._waiters.values())

    def of(self, agent: str) -> Waiter | None:
        """Return the open poll of an agent."""
        return self._waiters.get(agent)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(lane)`` whenever a lane may have more or fewer free slots than before."""
        self._listeners.append(listener)

    def add(self, waiter: Waiter) -> Waiter | None:
        """Take in a poll; returns the agent's earlier one, closed: its client has given it up."""
        earlier = self._waiters.get(waiter.agent)
        if earlier:
            self.remove(earlier)
        self._waiters[waiter.agent] = waiter
        for lane in waiter.lanes:
            self._lanes.setdefault(lane, _LaneQueue()).members.add(waiter)
        self._refresh(waiter)
        return earlier

    def remove(self, waiter: Waiter) -> None:
        """Close a poll: it gets no more offers. Repeating it is harmless."""
        waiter.open = False
        if self._waiters.get(waiter.agent) is waiter:
            del self._waiters[waiter.agent]
        for lane in waiter.lanes:
            if queue := self._lanes.get(lane):
                queue.members.discard(waiter)
                if not queue.members:
                    del self._lanes[lane]
            self._tell(lane)

    def free(self, waiter: Waiter) -> int:
        """Return how many more offers a poll can take."""
        if not waiter.open or waiter.cordoned:
            return 0
        taken = waiter.making + self.outstanding.count(waiter.agent, waiter.leases)
        return max(0, waiter.free_slots - taken)

    def capacity(self, lane: str, limit: int) -> int:
        """Return how many offers the polls of a lane can take, counting no further than ``limit``."""
        found = 0
        queue = self._lanes.get(lane)
        for waiter in queue.members if queue else ():
            found += self.free(waiter)
            if found >= limit:
                return limit
        return found

    def choose(self, lane: str) -> Waiter | None:
        """Reserve a slot of the lane's next agent, to be settled by :meth:`settle`."""
        queue = self._lanes.get(lane)
        waiter = queue.pop(self) if queue else None
        if waiter is None:
            return None
        waiter.making += 1
        self._served[waiter.agent] = next(self._turns)
        self._served.move_to_end(waiter.agent)
        if len(self._served) > _REMEMBERED_AGENTS:
            forgotten, _ = self._served.popitem(last=False)
            self.refresh(forgotten)
        self._refresh(waiter)
        return waiter

    def settle(self, waiter: Waiter) -> None:
        """End a reservation, whether an offer came of it (then it is in ``outstanding``) or not."""
        waiter.making -= 1
        self._refresh(waiter)

    def refresh(self, agent: str) -> None:
        """Look again at an agent whose outstanding offers have become fewer or more."""
        if waiter := self._waiters.get(agent):
            self._refresh(waiter)

    def _refresh(self, waiter: Waiter) -> None:
        if not waiter.open:
            return
        for lane in waiter.lanes:
            if self.free(waiter):
                self._lanes[lane].push(self, waiter)
            self._tell(lane)

    def _tell(self, lane: str) -> None:
        for listener in self._listeners:
            listener(lane)

    def rank(self, waiter: Waiter) -> tuple[int, int]:
        """Return the order in which waiters are chosen, smallest first."""
        return -self.free(waiter), self._served.get(waiter.agent, 0)


class _LaneQueue:
    """
    A lane's waiters, best first: a heap whose entries go stale and are skipped, not looked for.

    Every change of a waiter's rank that can raise it pushes a new entry; :meth:`pop` drops those whose
    rank is no longer true.
    """

    def __init__(self) -> None:
        self.members: set[Waiter] = set()
        self._heap: list[_Entry] = []
        self._numbers = itertools.count()

    def push(self, board: Board, waiter: Waiter) -> None:
        if len(self._heap) > 2 * len(self.members) + 64:  # mostly stale: polls come and go without work
            self._heap = [(*board.rank(member), next(self._numbers), member) for member in self.members]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (*board.rank(waiter), next(self._numbers), waiter))

    def pop(self, board: Board) -> Waiter | None:
        while self._heap:
            free, turn, _, waiter = heapq.heappop(self._heap)
            if free < 0 and waiter.open and board.rank(waiter) == (free, turn):
                return waiter
        return None
