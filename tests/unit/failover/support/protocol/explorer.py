"""Breadth-first search through everything a state machine can do. Knows nothing of what it explores."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
Steps = Callable[[S], Iterable[tuple[str, S]]]


@dataclass(frozen=True)
class Found(Generic[S]):
    """A state that must not be, and the shortest way there."""

    rule: str
    path: tuple[str, ...]
    state: S

    def __str__(self) -> str:
        return f"{self.rule} after: {' → '.join(self.path)}"


@dataclass
class Exploration(Generic[S]):
    """Every state that can be reached, from where, and how it can go on."""

    came_from: dict[S, tuple[S, str] | None] = field(default_factory=dict)
    leads_to: dict[S, list[S]] = field(default_factory=dict)
    violation: Found[S] | None = None

    def path_to(self, state: S) -> tuple[str, ...]:
        """Return the steps of the shortest way to a state."""
        steps: list[str] = []
        while (origin := self.came_from[state]) is not None:
            state, label = origin
            steps.append(label)
        return tuple(reversed(steps))

    def cannot_reach(self, goal: Callable[[S], bool]) -> Found[S] | None:
        """Return a state from which no way leads to ``goal``: there, something is lost."""
        backwards: defaultdict[S, list[S]] = defaultdict(list)
        for state, followers in self.leads_to.items():
            for follower in followers:
                backwards[follower].append(state)
        reaching = {state for state in self.came_from if goal(state)}
        edge = deque(reaching)
        while edge:
            for state in backwards[edge.popleft()]:
                if state not in reaching:
                    reaching.add(state)
                    edge.append(state)
        lost = next((state for state in self.came_from if state not in reaching), None)
        return None if lost is None else Found("lost for ever", self.path_to(lost), lost)


def explore(
    start: S, steps: Steps[S], forbidden: Callable[[S], str | None], *, limit: int = 2_000_000
) -> Exploration[S]:
    """
    Visit every reachable state; stop at the first for which ``forbidden`` names a rule.

    Raises ``RuntimeError`` at more than ``limit`` states: half an exploration proves nothing.
    """
    seen = Exploration[S]({start: None})
    edge = deque([start])
    while edge:
        state = edge.popleft()
        if rule := forbidden(state):
            seen.violation = Found(rule, seen.path_to(state), state)
            return seen
        followers = seen.leads_to[state] = []
        for label, follower in steps(state):
            followers.append(follower)
            if follower not in seen.came_from:
                seen.came_from[follower] = (state, label)
                edge.append(follower)
        if len(seen.came_from) > limit:
            raise RuntimeError(f"more than {limit} states; make the model smaller")
    return seen
