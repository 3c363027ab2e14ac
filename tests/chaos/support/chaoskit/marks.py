"""The marks of a burst's tasks, and what they prove. Pure: lines in, violations out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """
    One line a task wrote.

    ``task`` is the task with its index, the same over all attempts; ``lease`` is ``<TI id>.<epoch>``;
    ``at`` is CLOCK_MONOTONIC of this machine, seconds.
    """

    task: str
    ti: str
    lease: str
    attempt: int
    agent: str
    pid: int
    kind: Literal["started", "runs", "finished"]
    at: float

    @property
    def epoch(self) -> int:
        """Return the epoch of the lease."""
        return int(self.lease.rpartition(".")[2])


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Everything one process wrote about one task. ``end`` is its last mark, finished or not."""

    task: str
    ti: str
    epoch: int
    number: int
    agent: str
    pid: int
    start: float
    end: float
    finished: bool


@dataclass(frozen=True)
class Violation:
    """Something that must never happen. ``rule`` names which, ``detail`` says what the marks show."""

    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


def read(path: Path) -> list[Mark]:
    """Return the marks in a file; the last line may be in the middle of being written."""
    data = path.read_bytes() if path.exists() else b""
    return [msgspec.json.decode(line, type=Mark) for line in data.split(b"\n")[:-1]]


def attempts_of(marks: Iterable[Mark]) -> list[Attempt]:
    """Return the attempts in the order of their starts. Two processes are two attempts, always."""
    by_process: defaultdict[tuple[str, str, int], list[Mark]] = defaultdict(list)
    for mark in marks:
        by_process[mark.task, mark.lease, mark.pid].append(mark)
    return sorted((_attempt(found) for found in by_process.values()), key=lambda one: one.start)


def _attempt(marks: list[Mark]) -> Attempt:
    first = marks[0]
    return Attempt(
        task=first.task,
        ti=first.ti,
        epoch=first.epoch,
        number=first.attempt,
        agent=first.agent,
        pid=first.pid,
        start=min(mark.at for mark in marks),
        end=max(mark.at for mark in marks),
        finished=any(mark.kind == "finished" for mark in marks),
    )


def check(marks: Iterable[Mark], expected: Iterable[str], *, undisturbed: bool = False) -> list[Violation]:
    """
    Return everything the marks say that must not be.

    ``expected`` are the tasks that must have finished. ``undisturbed`` says that no agent was lost, so that
    nothing may have run a second time at all.
    """
    by_task: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts_of(marks):
        by_task[attempt.task].append(attempt)
    expected = set(expected)
    found = [
        Violation("lost", f"{task} never finished") for task in sorted(expected) if not _done(by_task[task])
    ]
    found += [Violation("unknown task", task) for task in sorted(by_task.keys() - expected)]
    for attempts in by_task.values():
        found += _check_task(attempts, undisturbed=undisturbed)
    return found


def _done(attempts: list[Attempt]) -> bool:
    return any(attempt.finished for attempt in attempts)


def _check_task(attempts: list[Attempt], *, undisturbed: bool) -> list[Violation]:
    found = []
    for before, after in pairwise(
        attempts
    ):  # in the order of starts, so an overlap shows between neighbours …
        latest = max(
            attempts[: attempts.index(after)], key=lambda one: one.end
        )  # … or with a longer one before
        if latest.end >= after.start:
            found.append(
                Violation("twice at once", f"{_name(latest)} until {latest.end:.3f}, {_name(after)}")
            )
        if before.ti == after.ti and before.epoch == after.epoch:
            found.append(Violation("one lease twice", f"{_name(before)}, {_name(after)}"))
        elif after.epoch <= before.epoch:
            found.append(Violation("older lease later", f"{_name(before)}, {_name(after)}"))
        if after.number < before.number:
            found.append(Violation("try number fell", f"{_name(before)}, {_name(after)}"))
    if undisturbed and len(attempts) > 1:
        found.append(Violation("ran again", ", ".join(map(_name, attempts))))
    return found


def _name(attempt: Attempt) -> str:
    return (
        f"{attempt.task} try {attempt.number} on {attempt.agent} (pid {attempt.pid}, lease "
        f"{attempt.ti}.{attempt.epoch}, from {attempt.start:.3f})"
    )
