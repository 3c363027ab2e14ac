"""
Runs the example Dag in the cluster to its end and says by the exit code whether it succeeded: for `tilt ci`.

Arguments: the kubectl command of the Tiltfile. Standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

DAG_ID = "orders"
LIMIT_SECONDS = 900.0
"""Parsing the Dag for the first time and the run take one or two minutes, on a slow machine several."""

PAUSE_SECONDS = 5.0


def main(kubectl: Sequence[str]) -> int:
    """Unpause the Dag, start a run, and wait for its end."""

    def airflow(*words: str) -> str | None:
        command = [*kubectl, "exec", "deployment/jetbridge-scheduler", "--", "airflow", *words]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603 - the Tiltfile's
        return done.stdout if done.returncode == 0 else None

    end = time.monotonic() + LIMIT_SECONDS
    run_id = f"tilt-ci-{int(time.time())}"
    for words in (("unpause", DAG_ID), ("trigger", DAG_ID, "--run-id", run_id)):
        _until(end, partial(airflow, "dags", *words))
    state = _until(end, lambda: _end_of(run_id, airflow("dags", "list-runs", DAG_ID, "--output", "json")))
    sys.stdout.write(f"{DAG_ID}: {state or 'did not end in time'}\n")
    return 0 if state == "success" else 1


def _until(end: float, ask: Callable[[], str | None]) -> str | None:
    """Ask again and again until there is an answer or the time is over."""
    while (answer := ask()) is None and time.monotonic() < end:
        time.sleep(PAUSE_SECONDS)
    return answer


def _end_of(run_id: str, listed: str | None) -> str | None:
    """Return the state of a run that ended."""
    states = [str(run["state"]) for run in _runs(listed or "") if run["run_id"] == run_id]
    return next((state for state in states if state in {"success", "failed"}), None)


def _runs(listed: str) -> list[dict[str, Any]]:
    """Return the list in what Airflow printed; a provider may have printed something before it."""
    for place in (at for at, character in enumerate(listed) if character == "["):
        try:
            found, _ = json.JSONDecoder().raw_decode(listed[place:])
        except ValueError:
            continue
        if all(isinstance(run, dict) for run in found):
            return list(found)
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
