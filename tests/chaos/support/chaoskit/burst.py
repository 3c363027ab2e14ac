"""One run of many tasks: begun, broken in the middle, seen to its end, and proven to be right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
from nats.errors import Error as NatsError

from chaoskit.bus import workloads
from chaoskit.marks import Attempt, Mark, attempts_of, check, read
from chaoskit.recovery import Recoveries
from jetbridge.bus.errors import BusError
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.devstack.agents import Agent
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.rest import Json
from jetbridge.devstack.stack import DevStack

PATIENCE_SECONDS = 180.0
REROUTED = "jetbridge.rerouted"

_AWAY = (DevStackError, OSError, BusError, TimeoutError, httpx.HTTPError, NatsError)
"""What asking a part of the stack raises while a scenario has it away."""


@dataclass
class Burst:
    """
    A run of the Dag ``burst``: one task that lists, then ``width`` tasks beside each other.

    None of them has a retry, so one that lost a retry would fail, and the run with it.
    """

    scenario: str
    stack: DevStack
    directory: Path
    recoveries: Recoveries
    width: int
    dag_id: str = "burst"
    run_id: str = ""
    broken_at: float | None = None
    noted: bool = False

    def trigger(self, *, seconds: float, hold: bool) -> None:
        """Begin. Each task runs for ``seconds``, and with ``hold`` until :meth:`let_go`."""
        conf = {"directory": str(self.directory), "width": self.width, "seconds": seconds, "hold": hold}
        self.run_id = self.stack.client.trigger(self.dag_id, conf)

    # -- what happens

    def marks(self) -> list[Mark]:
        """Return the marks so far."""
        return read(self.directory / "marks")

    def attempts(self) -> list[Attempt]:
        """Return the attempts so far, first to last."""
        return attempts_of(self.marks())

    def await_started(self, count: int) -> None:
        """Wait until ``count`` of the wide tasks have begun."""
        self.wait(lambda: len(self._begun()) >= count, f"{count} tasks to start")

    def _begun(self) -> set[str]:
        return {mark.task for mark in self.marks() if mark.task.startswith("show")}

    def await_attempts(self, task: str, count: int) -> None:
        """Wait until ``task`` was begun for the ``count``-th time."""
        self.wait(
            lambda: sum(one.task == task for one in self.attempts()) >= count, f"attempt {count} of {task}"
        )

    def busiest(self) -> Agent:
        """Return the agent that has begun most tasks and not finished them."""
        running = [one.agent for one in self.attempts() if not one.finished]
        return self.stack.agents[max(sorted(set(running)), key=running.count)]

    def breaks(self, action: Callable[[], Any]) -> None:
        """Do the damage, and note when: recovery counts from here."""
        self.broken_at = monotonic()
        action()

    def healed(self) -> None:
        """Count recovery from now instead: what was away is back, and only now can anything recover."""
        self.broken_at = monotonic()

    def note_recovery(self) -> None:
        """Take what was waited for as the recovery, instead of the next start of a task."""
        assert self.broken_at is not None
        self.recoveries.note(self.scenario, monotonic() - self.broken_at)
        self.broken_at, self.noted = None, True

    def let_go(self) -> None:
        """Let held tasks finish."""
        (self.directory / "go").touch()

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something; whatever part of the stack is away meanwhile."""

        def patiently() -> Any:
            try:
                return condition()
            except _AWAY:
                return False

        self.stack.client.wait(patiently, f"{self.scenario}: {what}", timeout_seconds=seconds)

    # -- the proof

    def prove(self, *, undisturbed: bool = False) -> None:
        """
        Wait for the end, then prove from the marks, from Airflow and from the bus that all is right.

        ``undisturbed``: no agent was lost, so that no task may have run a second time.
        """
        self.let_go()
        self.wait(lambda: self.state() in ("success", "failed"), f"run {self.run_id} to end")
        self._check_airflow(undisturbed=undisturbed)
        violations = check(self.marks(), self.expected(), undisturbed=undisturbed)
        assert not violations, "\n".join(map(str, violations))
        self.wait(self._bus_is_done, "the bus to have nothing unfinished of it")
        if not self.noted:
            self.recoveries.note(self.scenario, self.recovery_seconds())

    def state(self) -> str:
        """Return the state of the run."""
        return self.stack.client.run_state(self.dag_id, self.run_id)

    def prove_nothing_ran_twice(self) -> None:
        """Prove what holds even where tasks may fail: everything ended, and nothing ran beside itself."""
        violations = [one for one in check(self.marks(), self.expected()) if one.rule != "lost"]
        assert not violations, "\n".join(map(str, violations))
        self.wait(self._bus_is_done, "the bus to have nothing unfinished of it")

    def expected(self) -> list[str]:
        """Return the tasks of the run, by the names they have in marks."""
        return ["indices[0]", *(f"show[{index}]" for index in range(self.width))]

    def _check_airflow(self, *, undisturbed: bool) -> None:
        """Everything is terminal and well; each further try is one that a reroute gave, not a retry."""
        instances = self.instances()
        states = [(one["task_id"], one["map_index"], one["state"]) for one in instances]
        assert self.state() == "success", states
        assert {state for *_, state in states} == {"success"}, states
        rerouted = self._rerouted_tries()
        for one in instances:
            further = one["try_number"] - 1
            told = rerouted.get((one["task_id"], one["map_index"]), 0)
            assert further == told, (
                f"{one['task_id']}[{one['map_index']}]: {further} more tries, {told} rerouted"
            )
            assert one["max_tries"] == further, f"{one['task_id']}: reroutes cost retries"
        assert not (undisturbed and rerouted), rerouted

    def instances(self) -> list[Json]:
        """Return Airflow's task instances of the run."""
        return self.stack.client.task_instances(self.dag_id, self.run_id)

    def told(self, event: str) -> list[Json]:
        """Return what Airflow's audit log tells of one kind of event in this run."""
        found: list[Json] = self.stack.client.get(
            "eventLogs", dag_id=self.dag_id, run_id=self.run_id, event=event, limit=100
        )["event_logs"]
        return found

    def _rerouted_tries(self) -> dict[tuple[str, int], int]:
        """Return how often the audit log says that each task was rerouted."""
        found: dict[tuple[str, int], int] = {}
        for entry in self.told(REROUTED):
            task = entry["task_id"], -1 if entry["map_index"] is None else entry["map_index"]
            found[task] = found.get(task, 0) + 1
        return found

    def _bus_is_done(self) -> bool:
        # What finished while no scheduler looked is cleared away by a later one, a quarter of an hour later.
        return all(one.state is WorkloadState.FINISHED for one in self.records())

    def records(self) -> list[WorkloadRecord]:
        """Return what the bus still has of this run."""
        return [one for one in workloads(self.stack.nats.url) if one.coordinates.run_id == self.run_id]

    def recovery_seconds(self) -> float | None:
        """
        Return from the damage until work went on, or None when no task noticed.

        For work that was lost with an agent: until the last of it began elsewhere. Else: until the first
        task began after the damage, if any was still to begin.
        """
        if self.broken_at is None:
            return None
        attempts, again = self.attempts(), []
        for task in {one.task for one in attempts}:
            own = [one for one in attempts if one.task == task]
            again += [
                after.start for before, after in pairwise(own) if before.start < self.broken_at < after.start
            ]
        later = again or [one.start for one in attempts if one.start > self.broken_at][:1]
        return max(later) - self.broken_at if later else None
