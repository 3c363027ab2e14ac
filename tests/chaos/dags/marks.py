"""A task that shows, many times a second, that it runs; for tests that take its agent away."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task


@dag(schedule=None, catchup=False, params={"directory": "/nowhere"})
def marks() -> None:
    """Run one task, without retries, that ends when it is told to."""

    @task(retries=0, execution_timeout=timedelta(minutes=10))
    def show() -> str:
        context = get_current_context()
        directory = Path(context["params"]["directory"])
        instance = context["ti"]
        # CLOCK_MONOTONIC is the same for all processes of this machine, so marks can be compared.
        mark = {
            "ti": str(instance.id),
            "try": instance.try_number,
            "agent": os.environ["JETBRIDGE_AGENT_NAME"],
        }
        with (directory / "marks").open("a", buffering=1) as file:
            while not (directory / "go").exists():
                file.write(json.dumps({**mark, "at": time.monotonic()}) + "\n")
                time.sleep(0.02)
        return mark["agent"]

    show()


marks()
