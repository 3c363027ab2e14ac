"""
LocalExecutor and RemoteExecutor side by side: the same Airflow, database settings, Dags and slots.

Rounds are interleaved, so that a machine that is slower for a while slows both. Ratios count; absolute
times on a shared machine do not. Prints one JSON document; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.stack import REMOTE_EXECUTOR, DevStack, StackOptions

DAGS = Path(__file__).parent / "dags"
SLOTS = 16
RUN_SECONDS = 600


@dataclass(frozen=True)
class Contender:
    """One executor under test."""

    name: str
    executor: str
    agents: tuple[AgentSpec, ...]
    gateways: int

    def options(self) -> StackOptions:
        """Return the stack to measure it in; everything that is not the executor is the same."""
        return StackOptions(
            dags=DAGS,
            executor=self.executor,
            agents=self.agents,
            gateways=self.gateways,
            isolate=False,
            plane_extra={"AIRFLOW__CORE__PARALLELISM": str(SLOTS)},
            label=f"bench-{self.name}",
        )


CONTENDERS = (
    Contender("local", "LocalExecutor", (), 0),
    Contender("remote", REMOTE_EXECUTOR, (AgentSpec(name="bench", slots=SLOTS),), 2),
)


def measure(contender: Contender) -> dict[str, Any]:
    """Run every workload once in a stack of its own."""
    say(f"{contender.name}: starting")
    with DevStack(contender.options(), say=lambda _line: None) as stack:
        for dag_id in ("burst", "chain"):
            stack.client.await_dag(dag_id)
            stack.client.unpause(dag_id)
        run(stack, "chain")  # whatever is slow the first time only
        links = run(stack, "chain")
        before = cpu_seconds()
        instances = run(stack, "burst")
        return {
            "chain_queued_to_started_ms": summary(latencies(links)),
            "chain_end_to_next_start_ms": summary(gaps(links)),
            "burst_tasks_per_second": round(len(instances) / makespan(instances), 2),
            "burst_queued_to_started_ms": summary(latencies(instances)),
            "burst_cpu_seconds_per_task": round((cpu_seconds() - before) / len(instances), 3),
        }


def run(stack: DevStack, dag_id: str) -> list[dict[str, Any]]:
    """Run a Dag to its end and return its task instances."""
    run_id = stack.client.trigger(dag_id)
    state = stack.await_run(dag_id, run_id, timeout_seconds=RUN_SECONDS)
    if state != "success":
        sys.exit(f"{dag_id} ended as {state}; the logs are below {stack.directory}")
    return stack.client.task_instances(dag_id, run_id)


def latencies(instances: list[dict[str, Any]]) -> list[float]:
    """Return milliseconds from queued to started, per task."""
    return [(at(one, "start_date") - at(one, "queued_when")) * 1000 for one in instances]


def makespan(instances: list[dict[str, Any]]) -> float:
    """Return seconds from the first task queued to the last one ended."""
    ends = [at(one, "end_date") for one in instances]
    return max(ends) - min(at(one, "queued_when") for one in instances)


def gaps(instances: list[dict[str, Any]]) -> list[float]:
    """Return milliseconds from the end of a task to the start of the next, along a chain."""
    ordered = sorted(instances, key=lambda one: at(one, "start_date"))
    return [(at(after, "start_date") - at(before, "end_date")) * 1000 for before, after in pairwise(ordered)]


def at(instance: dict[str, Any], field: str) -> float:
    """Return one of Airflow's times as seconds."""
    return datetime.fromisoformat(instance[field]).timestamp()


def cpu_seconds() -> float:
    """Return what all processes of the stack have used, ended ones included."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def summary(values: list[float]) -> dict[str, float]:
    """Return the percentiles that people ask for."""
    ordered = sorted(values)
    return {
        f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1)
        for share in (50, 95)
    }


def compare(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return the figures the project promises, from the medians over all rounds."""

    def median(name: str, *path: str) -> float:
        values: list[float] = []
        for one in rounds[name]:
            value: Any = one
            for key in path:
                value = value[key]
            values.append(value)
        return statistics.median(values)

    chain, gap = ("chain_queued_to_started_ms", "p50"), ("chain_end_to_next_start_ms", "p50")
    return {
        "burst_remote_to_local": round(
            median("remote", "burst_tasks_per_second") / median("local", "burst_tasks_per_second"), 2
        ),
        "chain_remote_minus_local_ms": round(median("remote", *chain) - median("local", *chain), 1),
        "chain_gap_remote_to_local": round(median("remote", *gap) / median("local", *gap), 2),
        "burst_cpu_remote_to_local": round(
            median("remote", "burst_cpu_seconds_per_task") / median("local", "burst_cpu_seconds_per_task"), 2
        ),
    }


def say(line: str) -> None:
    """Tell the person who waits."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure in interleaved rounds and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=2)
    rounds: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in CONTENDERS}
    for number in range(parser.parse_args().rounds):
        for contender in CONTENDERS:
            say(f"round {number + 1}: {contender.name}")
            rounds[contender.name].append(measure(contender))
            say(json.dumps(rounds[contender.name][-1]))
    document = {
        "versions": {
            name: version(name) for name in ("apache-airflow-core", "jetbridge-worker", "jetbridge-gateway")
        },
        "settings": {
            "slots": SLOTS,
            "cores": os.cpu_count(),
            "scheduler_idle_sleep_time": {"local": "default", "remote": 0},
        },
        "rounds": rounds,
        "compared": compare(rounds),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
