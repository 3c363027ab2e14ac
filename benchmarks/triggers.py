"""
A remote triggerer and Airflow's own side by side: the same Airflow, database, scheduler and triggers.

Task instances are deferred straight in the metadata database, so that nothing but triggers is measured. All
times are on one machine's clock. Prints one JSON document; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.airflow import airflow_command
from jetbridge.devstack.stack import DevStack, StackOptions

HERE = Path(__file__).parent
ON_THE_AGENT = HERE / "triggers_on_the_agent"

# Importing Airflow writes into its home, which shall not be that of whoever measures.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="jetbridge-bench-airflow-")
sys.path.append(str(ON_THE_AGENT))
from deferring import Database, far_away  # noqa: E402 - imports Airflow; see above
from timed_triggers import TimedTrigger  # noqa: E402

PATIENCE_SECONDS = 300.0
MIB = 1024 * 1024
MANY = 1000
SINGLES = 40


def triggerer(name: str) -> AgentSpec:
    """Return one triggerer agent."""
    environment = {"PYTHONPATH": str(ON_THE_AGENT)}
    return AgentSpec(
        name=name, role="triggerer", queues=(), slots=2 * MANY, environment=lambda _: environment
    )


def options(name: str, agents: tuple[AgentSpec, ...], scheduler_idle_seconds: float) -> StackOptions:
    """Return the stack to measure in."""
    return StackOptions(
        dags=HERE / "dags",
        agents=agents,
        gateways=1,
        isolate=False,
        policy=("boundary.trigger-data=open",),  # when a trigger fired is read from its event
        plane_extra={
            "AIRFLOW__CORE__PARALLELISM": "5000",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": str(scheduler_idle_seconds),
        },
        label=f"bench-triggers-{name}",
    )


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something to be true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE_SECONDS:.0f} s: {what}")
        time.sleep(0.02)
    return found


def resumed(database: Database, ids: list[Any], *, queued: bool = False) -> list[Any]:
    """Wait until the tasks were resumed, or queued again; return them."""

    def done() -> list[Any]:
        found = database.instances(ids)
        missing = [one for one in found if one.scheduled_dttm is None or (queued and one.queued_dttm is None)]
        return [] if missing else found

    return until(done, "tasks to be resumed")


def measure(database: Database, pids: Callable[[], list[int]]) -> dict[str, Any]:
    """Measure one triggerer."""
    say("  one after another")
    begun = []
    for _ in range(SINGLES // 2):
        ids, committed = database.defer([TimedTrigger(0.0)])
        begun += [database.fired_at(one) - committed for one in resumed(database, ids)]
    at = time.time() + 5
    ids, _ = database.defer([TimedTrigger(at + 0.7 * number) for number in range(SINGLES)])
    single = resumed(database, ids, queued=True)
    fired = [database.fired_at(one) for one in single]
    say(f"  {MANY} that wait")
    waits, committed = database.defer(far_away(MANY))
    until(lambda: sum(database.held().values()) >= MANY, "all triggers to be assigned")
    assigned = time.time() - committed
    time.sleep(15)  # for the last ones to begin, and for what their beginning took to be given back
    memory = memory_of(pids())
    say(f"  {MANY} at the same moment, beside those")
    at = time.time() + 45
    ids, _ = database.defer([TimedTrigger(at) for _ in range(MANY)])
    burst = resumed(database, ids)
    scheduled = [one.scheduled_dttm.timestamp() for one in burst]
    return {
        "deferred_to_running_ms": summary(begun),
        "fired_to_scheduled_ms": summary(
            [one.scheduled_dttm.timestamp() - when for one, when in zip(single, fired, strict=True)]
        ),
        "fired_to_queued_ms": summary(
            [one.queued_dttm.timestamp() - when for one, when in zip(single, fired, strict=True)]
        ),
        f"{MANY}_assigned_seconds": round(assigned, 2),
        f"{MANY}_memory_mib": memory,
        f"{MANY}_at_once_events_per_second": round(MANY / (max(scheduled) - at), 1),
        f"{MANY}_at_once_fired_to_scheduled_ms": summary(
            [when - database.fired_at(one) for when, one in zip(scheduled, burst, strict=True)]
        ),
        "waiting": len(waits),
    }


def memory_of(pids: list[int]) -> dict[str, float]:
    """Return resident and proportional memory of the processes together."""
    infos = [psutil.Process(pid).memory_full_info() for pid in pids]
    return {
        "rss": round(sum(info.rss for info in infos) / MIB, 1),
        "pss": round(sum(info.pss for info in infos) / MIB, 1),
        "processes": len(infos),
    }


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


@contextmanager
def running(name: str, agents: tuple[AgentSpec, ...], idle: float) -> Iterator[tuple[DevStack, Database]]:
    """Start a stack and say that the Dag may run."""
    say(f"{name}: starting")
    with DevStack(options(name, agents, idle), say=lambda _line: None) as stack:
        stack.client.await_dag("waiting")
        stack.client.unpause("waiting")
        yield stack, Database(stack)


def measure_remote(idle: float) -> dict[str, Any]:
    """Measure ours."""
    with running("remote", (triggerer("one"),), idle) as (stack, database):
        return measure(database, lambda: tree(stack.agents["one"].process.pid))


def measure_airflows(idle: float) -> dict[str, Any]:
    """Measure Airflow's own, which has the database at hand."""
    with running("airflow", (), idle) as (stack, database):
        env = dict(stack.airflow.scheduler.command.env) | {"PYTHONPATH": str(ON_THE_AGENT)}
        command = airflow_command(env, "triggerer", "--capacity", str(2 * MANY), "--skip-serve-logs")
        process = stack.supervisor.start("airflow-triggerer", command)
        return measure(database, lambda: tree(process.pid))


def measure_takeover(idle: float) -> dict[str, Any]:
    """Kill one of two triggerers; measure from when its loss is known until its triggers run elsewhere."""
    with running("takeover", (triggerer("one"), triggerer("two")), idle) as (stack, database):
        database.defer(far_away(200))
        until(lambda: sum(database.held().values()) >= 200, "all triggers to be assigned")
        victim = max(
            (database.job("one"), database.job("two")), key=lambda job: database.held().get(job.id, 0)
        )
        number = database.held()[victim.id]
        stack.agents[victim.hostname].process.kill()
        killed = time.time()
        lost = until(lambda: (job := database.job(victim.hostname)).end_date and job, "the loss to be known")
        until(lambda: sum(database.held().values()) >= 200, "its triggers to be taken over")
        taken = time.time()
    return {
        "triggers_taken_over": number,
        "loss_known_after_seconds": round(lost.end_date.timestamp() - killed, 2),
        "taken_over_after_known_seconds": round(max(0.0, taken - lost.end_date.timestamp()), 2),
    }


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the percentiles that people ask for, in milliseconds."""
    ordered = sorted(seconds)
    return {
        f"p{share}": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1)
        for share in (50, 95)
    }


def say(line: str) -> None:
    """Tell the person who waits."""
    print(line, file=sys.stderr, flush=True)


PARTS = {"remote": measure_remote, "airflow": measure_airflows, "takeover": measure_takeover}


def main() -> None:
    """Measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument(
        "--scheduler-idle-seconds",
        type=float,
        help="default: as deployed, which is 0 with remote triggerers and Airflow's own 1 without",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "versions": {name: version(name) for name in ("apache-airflow-core", "jetbridge-triggerer")},
        "settings": {"cores": os.cpu_count()},
    }
    for part in arguments.parts:
        as_deployed = 1.0 if part == "airflow" else 0.0
        idle = as_deployed if arguments.scheduler_idle_seconds is None else arguments.scheduler_idle_seconds
        document[part] = {"scheduler_idle_sleep_time": idle, **PARTS[part](idle)}
        say(json.dumps({part: document[part]}))
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
