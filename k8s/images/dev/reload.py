"""
Entry point of every image's `dev` stage: runs the container's command, again when a Python file changes.

Only services are run again. Jobs and init containers, which are meant to end, are run as they are.
"""

import os
import shlex
import sys

SERVICES = (
    ("jetbridge", "gateway"),
    ("jetbridge", "router"),
    ("jetbridge", "sentinel"),
    ("jetbridge", "bridge"),
    ("jetbridge", "worker"),
    ("jetbridge", "triggerer"),
    ("jetbridge", "dag-processor"),
    ("airflow", "api-server"),
    ("airflow", "scheduler"),
    ("airflow", "dag-processor"),
)
SOURCES = os.environ.get("RELOAD_SOURCES", "/src")
DEBOUNCE_MS = 300
"""Tilt copies the files of one save within a few milliseconds of each other."""

STOP_SECONDS = 2
"""Then the process is killed: whoever saves a file waits for the new one."""


def main(command: list[str]) -> None:
    """Run ``command``; returns only after a service was asked to stop."""
    if tuple(command[:2]) not in SERVICES:
        os.execvp(command[0], command)  # noqa: S606 - the container's own command
    from watchfiles import PythonFilter, run_process  # noqa: PLC0415 - not for commands that are not watched

    run_process(
        SOURCES,
        target=shlex.join(command),
        target_type="command",
        watch_filter=PythonFilter(),
        debounce=DEBOUNCE_MS,
        step=50,
        sigint_timeout=STOP_SECONDS,
        sigkill_timeout=1,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
