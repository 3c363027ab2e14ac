"""The directory an agent keeps its state in, and the lock that makes it this agent's alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from jetbridge.agent.errors import AgentError, ExitCode


class DataDirError(AgentError):
    """The data directory cannot be used."""

    exit_code = ExitCode.USAGE


@contextlib.contextmanager
def lock_data_dir(path: Path) -> Iterator[None]:
    """
    Make the directory if need be and hold its lock, which the kernel frees when this process ends.

    Two agents on one directory are nearly always one started twice under the same name: they would
    replace each other at the gateway for ever. Raises :class:`DataDirError`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(f"the data directory {path} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirError(
                f"another agent uses the data directory {path}; "
                "give each agent of a machine its own --data-dir and --name"
            ) from error
        yield
    finally:
        os.close(lock)
