"""
Entry point of every image's `dev` stage: runs the container's command, again when a Python file changes.

Only services are run again. Jobs and init containers, which are meant to end, are run as they are.
"""

import os
import signal
import subprocess
import sys
import threading

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


LOOK_MS = 500
"""How often to look whether the service ended by itself."""


def main(command: list[str]) -> None:
    """Run ``command``; exits with its code."""
    if tuple(command[:2]) not in SERVICES:
        os.execvp(command[0], command)  # noqa: S606 - the container's own command
    sys.exit(serve(command))


def serve(command: list[str]) -> int:
    """
    Run a service until it ends well by itself, as after a drain, or is asked to: the kubelet does the rest.

    One that fails waits for the next change, which is likely to be what repairs it.
    """
    from watchfiles import PythonFilter, watch  # noqa: PLC0415 - not for commands that are not watched

    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    process = subprocess.Popen(command)  # noqa: S603 - the container's own command
    for changes in watch(
        SOURCES,
        watch_filter=PythonFilter(),
        debounce=DEBOUNCE_MS,
        step=50,
        stop_event=asked,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
    ):
        if changes:
            stop(process)
            process = subprocess.Popen(command)  # noqa: S603
        elif process.poll() == 0:
            return 0
    process.terminate()  # and wait for as long as the pod is given, so that a roll-out drains here, too
    return process.wait()


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End what is to be replaced at once."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
