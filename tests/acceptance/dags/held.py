"""Tasks that say when they started and end when they are told to; for tests that break things meanwhile."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

WIDTH = 4


@dag(schedule=None, catchup=False, params={"directory": "/nowhere"})
def held() -> None:
    """Start ``WIDTH`` tasks that wait for a file, and add up what they return."""

    @task(execution_timeout=timedelta(minutes=10))
    def hold(number: int) -> int:
        directory = Path(get_current_context()["params"]["directory"])
        # One file per process that ever ran this task: a second one is seen even if it is killed at once.
        (directory / f"started-{number}-{uuid.uuid4().hex}").touch()
        while not (directory / "go").exists():
            time.sleep(0.05)
        return number

    @task
    def total(numbers: list[int]) -> int:
        result = sum(numbers)
        directory = Path(get_current_context()["params"]["directory"])
        (directory / "total").write_text(str(result))
        return result

    total(hold.expand(number=list(range(WIDTH))))


held()
