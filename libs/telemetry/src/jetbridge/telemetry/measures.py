"""
What the processes of one agent measure for its metrics: a line each, into a named pipe that the agent reads.

A task and its supervisor are processes of their own, which no scrape reaches and which may end any moment.
Telling must never delay or fail one of them: when nobody reads or the pipe is full, the measure is dropped.
The pipe is in the agent's own folder; whoever may write there is the agent's user, tasks included.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

VARIABLE = "JETBRIDGE_MEASURES"
"""Where the pipe is; set by the agent for the processes it starts."""

TASK_STARTUP_SECONDS = "task_startup_seconds"
XCOM_WRITTEN_BYTES = "xcom_written_bytes"
XCOM_READ_BYTES = "xcom_read_bytes"
LOG_UPLOADED_BYTES = "log_uploaded_bytes"

_READ_BYTES = 65536
"""What a pipe holds."""

_LONGEST_LINE_BYTES = 512
"""``PIPE_BUF`` at its least: a write up to this is never mixed with another's."""

Takers = Mapping[str, Callable[[float], object]]


def tell(measure: str, value: float) -> None:
    """Tell the agent that something was measured. Never waits and never raises."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    with suppress(OSError):
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(pipe, f"{measure} {float(value)!r}\n".encode())
        finally:
            os.close(pipe)


@contextmanager
def listening(path: Path, takers: Takers) -> Iterator[None]:
    """Make the pipe and pass on what comes, in a thread, until the block ends; what is unknown is skipped."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    # For writing as well: a pipe that nobody has open for writing would be at its end all the time.
    pipe = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    ended = threading.Event()
    thread = threading.Thread(target=_pass_on, args=(pipe, takers, ended), name="measures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        path.unlink(missing_ok=True)
        os.write(pipe, b"\n")
        thread.join()
        os.close(pipe)


def _pass_on(pipe: int, takers: Takers, ended: threading.Event) -> None:
    rest = b""
    while not ended.is_set():
        *lines, rest = (rest + os.read(pipe, _READ_BYTES)).split(b"\n")
        rest = rest[-_LONGEST_LINE_BYTES:]
        for line in lines:
            _take(line, takers)


def _take(line: bytes, takers: Takers) -> None:
    measure, _, text = line.decode("ascii", "replace").partition(" ")
    with suppress(ValueError):
        value = float(text)
        if measure in takers and math.isfinite(value) and value >= 0:
            takers[measure](value)
