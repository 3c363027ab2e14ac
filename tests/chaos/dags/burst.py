"""
Tasks that leave marks: when they began, many times a second that they run, and when they finished.

One file for all tasks of a burst, opened for appending: a line is written by one ``write`` and so is whole.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, get_current_context, task

BEAT_SECONDS = 0.05
"""Two attempts that overlap by less than this may go unnoticed."""


PATIENCE = timedelta(hours=1)
"""More than any scenario takes."""


class Marker:
    """Writes the marks of one attempt."""

    def __init__(self, context: Any, directory: str, index: int) -> None:
        instance = context["ti"]
        self.file = (Path(directory) / "marks").open("ab", buffering=0)
        self.who = {
            "task": f"{instance.task_id}[{index}]",
            "ti": str(instance.id),
            "lease": os.environ["JETBRIDGE_LEASE"],
            "attempt": instance.try_number,
            "agent": os.environ["JETBRIDGE_AGENT_NAME"],
            "pid": os.getpid(),
        }

    def mark(self, kind: str) -> None:
        # CLOCK_MONOTONIC is the same for all processes of this machine, so marks can be compared, and no
        # step of anybody's wall clock moves them.
        line = {**self.who, "kind": kind, "at": time.clock_gettime(time.CLOCK_MONOTONIC)}
        self.file.write(json.dumps(line).encode() + b"\n")


def work(directory: str, index: int, seconds: float, *, hold: bool) -> None:
    """Run for ``seconds``, and with ``hold`` until the file ``go`` appears."""
    marker = Marker(get_current_context(), directory, index)
    marker.mark("started")
    until = time.monotonic() + seconds
    while time.monotonic() < until or (hold and not (Path(directory) / "go").exists()):
        time.sleep(BEAT_SECONDS)
        marker.mark("runs")
    marker.mark("finished")


def burst(dag_id: str, queue: str, priority_weight: int = 1) -> None:
    """Make a Dag whose ``width`` tasks, none of which has a retry to lose, run on ``queue``."""
    options: Any = {"retries": 0, "queue": queue, "execution_timeout": PATIENCE}
    options |= {"priority_weight": priority_weight, "weight_rule": "absolute"}

    @dag(
        dag_id=dag_id,
        schedule=None,
        catchup=False,
        params={"directory": "/nowhere", "width": 1, "seconds": 0.0, "hold": False},
    )
    def make() -> None:
        @task(**options)
        def indices() -> list[int]:
            params = get_current_context()["params"]
            work(params["directory"], 0, 0.0, hold=False)
            return list(range(params["width"]))

        @task(**options)
        def show(index: int) -> None:
            params = get_current_context()["params"]
            work(params["directory"], index, params["seconds"], hold=params["hold"])

        show.expand(index=indices())

    make()


burst("burst", "default")
burst("urgent", "default", priority_weight=1000)
burst("stranded", "nobody")  # no agent of the shared world serves this queue
