"""
The text of a Dag file, for the UI's Code tab where a policy lets it cross.

Read by the process that every parser is forked from, so nothing a Dag file may be can hold it up or lead it
elsewhere: what is no plain file below its bundle, and no text of moderate size, is not read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jetbridge.contracts.dag_processing import MAX_SOURCE_BYTES


def read_source(bundle: Path, path: str) -> str | None:
    """Return what is in a Dag file, or None for what is not to be read; a file in an archive is not."""
    root = bundle.resolve()
    file = (root / path).resolve()
    if not file.is_relative_to(root):
        return None
    try:
        # Not blocking, for a pipe that nobody writes to; the check below is of what was really opened.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            data = opened.read(MAX_SOURCE_BYTES + 1)
    finally:
        os.close(descriptor)
    try:
        return data.decode() if len(data) <= MAX_SOURCE_BYTES else None
    except UnicodeDecodeError:
        return None
