"""One of the two systems: parses all examples, runs what can be run, and takes down what came out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import psycopg

from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.airflow import airflow_command
from jetbridge.devstack.compat import corpus
from jetbridge.devstack.compat.comparison import Observation, Outcome
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.plane import EVERYTHING_OPEN
from jetbridge.devstack.processes import Say
from jetbridge.devstack.rest import WaitError
from jetbridge.devstack.stack import REMOTE_EXECUTOR, DevStack, StackOptions

RUN_ID = "compat"
LOGICAL_DATE = "2026-06-05T00:00:00Z"
"""Of every run; a Friday, after each example's start and before today."""

RUNS_SECONDS = 1200.0
_PARSE_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_SLOTS = 8

SERIALIZED_WITH_DAGS = {
    # What is part of every serialized Dag has to be the same for both Dag processors.
    "PYTHONHASHSEED": "0",
    "AIRFLOW__CORE__DAGS_FOLDER": "/nonexistent/dags",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "256",
}
_BOTH = {
    **SERIALIZED_WITH_DAGS,
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(corpus.PLUGINS),
    "AIRFLOW__CORE__PARALLELISM": str(_SLOTS),
    "AIRFLOW_CONN_FS_DEFAULT": '{"conn_type": "fs"}',
    # Runs are made by us alone.
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
}
_AGENTS = (
    AgentSpec(name="works", slots=_SLOTS, environment=lambda _: _BOTH),
    AgentSpec(name="parses", role="dag-processor", queues=(), environment=lambda _: _BOTH),
    AgentSpec(name="waits", role="triggerer", queues=(), slots=100, environment=lambda _: _BOTH),
)

Chosen = Callable[[str], bool]


@contextlib.contextmanager
def local(say: Say) -> Iterator[DevStack]:
    """Start Airflow with LocalExecutor, its own Dag processor and triggerer; parse everything once."""
    extra = {**_BOTH, "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2"}
    options = StackOptions(
        dags=Path("/nonexistent"),
        bundles=corpus.bundles(),
        executor="LocalExecutor",
        gateways=0,
        plane_extra=extra,
        label="compat-local",
    )
    with DevStack(options, say=say) as stack:
        processor = stack.airflow.dag_processor
        if processor is None:
            msg = "a plane without agents has a Dag processor"
            raise DevStackError(msg)
        processor.stop()  # it does not say when it has seen every file; one that ends does
        once = airflow_command(processor.command.env, "dag-processor", "--num-runs", "1")
        stack.supervisor.run("airflow-dag-processor-once", once, timeout_seconds=_PARSE_SECONDS)
        processor.start()
        stack.supervisor.start("airflow-triggerer", airflow_command(processor.command.env, "triggerer"))
        yield stack


@contextlib.contextmanager
def remote(say: Say, files: Collection[str]) -> Iterator[DevStack]:
    """Start Jetbridge with no Dag on the plane, and wait until ``files`` were parsed."""
    options = StackOptions(
        dags=Path("/nonexistent"),
        bundles=corpus.bundles(),
        executor=REMOTE_EXECUTOR,
        gateways=1,
        agents=_AGENTS,
        # What is closed by default changes Dags and refuses requests, on purpose; that is not what is asked.
        policy=EVERYTHING_OPEN,
        plane_extra=_BOTH,
        label="compat-remote",
    )
    with DevStack(options, say=say) as stack:
        _await_files(stack, files)
        yield stack


def _await_files(stack: DevStack, files: Collection[str]) -> None:
    deadline = time.monotonic() + _PARSE_SECONDS
    while missing := set(files) - parsed_files(stack):
        stack.check_alive()
        if time.monotonic() > deadline:
            msg = f"not parsed after {_PARSE_SECONDS:.0f} s: {', '.join(sorted(missing))}"
            raise DevStackError(msg)
        time.sleep(_LOOK_SECONDS)


def parsed_files(stack: DevStack) -> set[str]:
    """Return the files of which the plane knows a Dag or an import error."""
    query = "SELECT relative_fileloc FROM dag UNION SELECT filename FROM import_error"
    return {file for (file,) in _rows(stack, query)}


def observe(stack: DevStack, chosen: Chosen, say: Say) -> Observation:
    """Run every chosen Dag that can be run, all at once, and return all that is to be compared."""
    dags = dict(_rows(stack, "SELECT dag_id, data FROM serialized_dag"))
    errors = dict(_rows(stack, "SELECT filename, stacktrace FROM import_error"))
    outcomes = {}
    started = []
    for dag_id in sorted(dag_id for dag_id in dags if dag_id not in corpus.NOT_RUN and chosen(dag_id)):
        try:
            stack.client.unpause(dag_id)
            stack.client.trigger(dag_id, corpus.CONF.get(dag_id), RUN_ID, LOGICAL_DATE)
            started.append(dag_id)
        except DevStackError as error:
            outcomes[dag_id] = Outcome(f"refused ({error})", {})
    say(f"{len(dags)} Dags parsed, {len(errors)} import errors; {len(started)} runs started")
    _await_runs(stack, say)
    return Observation(dags, errors, outcomes | {dag_id: _outcome(stack, dag_id) for dag_id in started})


def _await_runs(stack: DevStack, say: Say) -> None:
    def open_runs() -> list[str]:
        query = "SELECT dag_id FROM dag_run WHERE run_id = %s AND state NOT IN ('success', 'failed')"
        dags = [dag_id for (dag_id,) in _rows(stack, query, RUN_ID)]
        return [dag_id for dag_id in dags if not _only_waits(stack, dag_id)]

    try:
        stack.client.wait(
            lambda: not open_runs(), "all runs to end", timeout_seconds=RUNS_SECONDS, check=stack.check_alive
        )
    except WaitError:
        say(f"not ended after {RUNS_SECONDS:.0f} s: {', '.join(open_runs())}")


def _only_waits(stack: DevStack, dag_id: str) -> bool:
    """Say whether nothing of a run is left but tasks that nobody waits for."""
    if dag_id not in corpus.LEFT_WAITING:
        return False
    query = (
        "SELECT task_id, state FROM task_instance WHERE dag_id = %s AND run_id = %s "
        "AND coalesce(state, '') NOT IN ('success', 'failed', 'skipped', 'upstream_failed')"
    )
    return dict(_rows(stack, query, dag_id, RUN_ID)) == corpus.LEFT_WAITING[dag_id][0]


def _outcome(stack: DevStack, dag_id: str) -> Outcome:
    instances = stack.client.task_instances(dag_id, RUN_ID)
    tasks = {
        one["task_id"] if one["map_index"] < 0 else f"{one['task_id']}[{one['map_index']}]": str(one["state"])
        for one in instances
    }
    return Outcome(stack.client.run_state(dag_id, RUN_ID), tasks)


def _rows(stack: DevStack, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(stack.database_url) as connection:
        return connection.execute(query, parameters).fetchall()
