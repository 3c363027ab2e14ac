"""
Executors side by side: LocalExecutor, CeleryExecutor, EdgeExecutor and ours, in interleaved rounds.

A machine that is slower for a while slows all of them. Ratios count; absolute times on a shared machine do
not. Prints one JSON document and, to stderr, progress and a table; ``--write DIRECTORY`` keeps the document
and draws the pictures of ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from peers import CONTENDERS, SLOTS, Contender
from usage import Peaks, cpu_seconds, pss_mib

from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.stack import DevStack

RUN_SECONDS = 900
DISTRIBUTIONS = (
    "apache-airflow-core",
    "apache-airflow-providers-celery",
    "apache-airflow-providers-edge3",
    "jetbridge-worker",
)

Figures = dict[str, Any]


def measure(contender: Contender, idle_seconds: float) -> Figures:
    """Run every workload once in a stack of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="jetbridge-bench-") as directory,
        contender.running(Path(directory)) as (stack, supervisors),
    ):
        for dag_id in ("burst", "chain"):
            stack.client.await_dag(dag_id)
            stack.client.unpause(dag_id)
        # Whatever is slow the first time only: Celery's processes import Airflow with its first task.
        run(stack, "burst")
        return {
            "idle": idle(supervisors, idle_seconds),
            "chain": chain(stack),
            "burst": burst(stack, supervisors),
        }


def idle(supervisors: tuple[Supervisor, ...], seconds: float) -> Figures:
    """Return CPU, as a share of one core, and memory of each component while nothing happens."""
    before = cpu_seconds(*supervisors)
    time.sleep(seconds)  # the thing that is measured
    used = cpu_seconds(*supervisors) - before
    return {
        "cpu_percent": {name: round(100 * value / seconds, 1) for name, value in used.items()},
        "pss_mib": rounded(pss_mib(*supervisors), 0),
    }


def chain(stack: DevStack) -> Figures:
    """Run tasks one after another."""
    instances = run(stack, "chain")
    return {
        "queued_to_started_ms": summary(latencies(instances)),
        "end_to_next_start_ms": summary(gaps(instances)),
    }


def burst(stack: DevStack, supervisors: tuple[Supervisor, ...]) -> Figures:
    """Run many tasks at once."""
    before, peaks = cpu_seconds(*supervisors), Peaks(supervisors)
    with peaks.watching():
        instances = run(stack, "burst")
    used = cpu_seconds(*supervisors) - before
    return {
        "tasks_per_second": round(len(instances) / makespan(instances), 2),
        "makespan_seconds": round(makespan(instances), 1),
        "queued_to_started_ms": summary(latencies(instances)),
        "cpu_seconds_per_task": round(used.total() / len(instances), 3),
        "cpu_seconds_per_task_by_component": {
            name: round(value / len(instances), 4) for name, value in used.most_common()
        },
        "peak_pss_mib": rounded(peaks.mib, 0),
    }


def run(stack: DevStack, dag_id: str) -> list[Figures]:
    """Run a Dag to its end and return its task instances."""
    run_id = stack.client.trigger(dag_id)
    state = stack.await_run(dag_id, run_id, timeout_seconds=RUN_SECONDS)
    if state != "success":
        sys.exit(f"{dag_id} ended as {state}; the logs are below {stack.directory}")
    return stack.client.task_instances(dag_id, run_id)


def latencies(instances: Iterable[Figures]) -> list[float]:
    """Return milliseconds from queued to started, per task."""
    return [(at(one, "start_date") - at(one, "queued_when")) * 1000 for one in instances]


def gaps(instances: Iterable[Figures]) -> list[float]:
    """Return milliseconds from the end of a task to the start of the next, along a chain."""
    ordered = sorted(instances, key=lambda one: at(one, "start_date"))
    return [(at(after, "start_date") - at(before, "end_date")) * 1000 for before, after in pairwise(ordered)]


def makespan(instances: list[Figures]) -> float:
    """Return seconds from the first task queued to the last one ended."""
    return max(at(one, "end_date") for one in instances) - min(at(one, "queued_when") for one in instances)


def at(instance: Figures, field: str) -> float:
    """Return one of Airflow's times as seconds."""
    return datetime.fromisoformat(instance[field]).timestamp()


def summary(values: list[float]) -> dict[str, float]:
    """Return the percentiles that people ask for."""
    ordered = sorted(values)
    return {
        f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1)
        for share in (50, 95, 99)
    }


def rounded(values: dict[str, float], digits: int) -> dict[str, float]:
    """Return the values in the order of their size."""
    return {name: round(value, digits) for name, value in sorted(values.items(), key=lambda item: -item[1])}


FIGURES = {
    "burst, tasks/s": ("burst", "tasks_per_second"),
    "burst, queued → started p50, ms": ("burst", "queued_to_started_ms", "p50"),
    "burst, CPU-s per task, all processes": ("burst", "cpu_seconds_per_task"),
    "burst, worker's peak PSS, MiB": ("burst", "peak_pss_mib", "worker"),
    "chain, queued → started p50, ms": ("chain", "queued_to_started_ms", "p50"),
    "chain, end → next start p50, ms": ("chain", "end_to_next_start_ms", "p50"),
    "idle worker, PSS MiB": ("idle", "pss_mib", "worker"),
    "idle scheduler, % of a core": ("idle", "cpu_percent", "scheduler"),
}
"""What the table shows, and where it is in a round's figures."""


def median(rounds: list[Figures], path: tuple[str, ...]) -> float | None:
    """Return the median of one figure over all rounds; LocalExecutor has no worker to look at."""
    values = []
    for one in rounds:
        value: Any = one
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    return statistics.median(values) if values else None


def table(rounds: dict[str, list[Figures]]) -> str:
    """Return the medians as a table, ours as a ratio to each other executor behind it."""
    names = list(rounds)
    head = ["", *names, *(f"remote/{name}" for name in names if name != "remote")]
    lines = [head, ["---"] * len(head)]
    for title, path in FIGURES.items():
        values = {name: median(rounds[name], path) for name in names}
        ours = values.get("remote")
        ratios = [
            f"{ours / value:.2f}" if ours is not None and value else ""
            for name, value in values.items()
            if name != "remote"
        ]
        lines.append([title, *("" if value is None else f"{value:g}" for value in values.values()), *ratios])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document(rounds: dict[str, list[Figures]]) -> Figures:
    """Return everything that was measured, with what it was measured on."""
    return {
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in DISTRIBUTIONS} | {"python": platform.python_version()},
        "settings": {
            "slots": SLOTS,
            "parallelism": {name: CONTENDERS[name].parallelism for name in rounds},
            "cores": os.cpu_count(),
            "load_average": psutil.getloadavg(),
            "scheduler_idle_sleep_time": "Airflow's default, 1; remote: 0; local-0.1: 0.1",
        },
        "rounds": rounds,
        "medians": {
            title: {name: median(rounds[name], path) for name in rounds} for title, path in FIGURES.items()
        },
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def say(line: str) -> None:
    """Tell the person who waits."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure in interleaved rounds and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, separated by commas")
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--write", type=Path, help="keep the document and draw pictures in this directory")
    arguments = parser.parse_args()
    chosen = [CONTENDERS[name] for name in arguments.only.split(",")]
    rounds: dict[str, list[Figures]] = {contender.name: [] for contender in chosen}
    for number in range(arguments.rounds):
        for contender in chosen:
            say(f"round {number + 1} of {arguments.rounds}: {contender.name}")
            rounds[contender.name].append(measure(contender, arguments.idle_seconds))
            say(json.dumps(rounds[contender.name][-1]))
    result = document(rounds)
    print(json.dumps(result, indent=1))
    say(table(rounds))
    if arguments.write:
        from plots import draw  # noqa: PLC0415 - matplotlib is not needed to measure

        (arguments.write / "executors.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(rounds, arguments.write)


if __name__ == "__main__":
    main()
