"""Where the development stack keeps its files: tools, caches and one directory per run."""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import datetime
from pathlib import Path

import psutil

_WORKSPACE_FILE = "uv.lock"
_OWNER = "owner.pid"
KEPT_RUNS = 5
"""Run directories of ended runs that are kept for reading logs; a demo's is some 30 MB."""


def home() -> Path:
    """
    Return the directory for everything the stack writes, made if needed.

    ``JETBRIDGE_DEVSTACK_HOME`` wins; else ``.jetbridge`` in the workspace this file belongs to, or in
    the current directory when the package is installed elsewhere.
    """
    chosen = os.environ.get("JETBRIDGE_DEVSTACK_HOME")
    path = Path(chosen) if chosen else workspace() / ".jetbridge"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def workspace() -> Path:
    """Return the root of the uv workspace around this file, else the current directory."""
    for parent in Path(__file__).resolve().parents:
        if (parent / _WORKSPACE_FILE).is_file() and (parent / "libs").is_dir():
            return parent
    return Path.cwd()


def new_run_directory(label: str) -> Path:
    """Make a fresh private directory for one run; its name is unique and sorts by time."""
    runs = home() / "run"
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    path = runs / f"{stamp}-{label}-{secrets.token_hex(3)}"
    path.mkdir(parents=True, mode=0o700)
    (path / _OWNER).write_text(f"{os.getpid()}\n")
    return path


def forget_old_runs() -> None:
    """Delete the directories of all but the newest runs, except where the run still goes on."""
    oldest_first = sorted(path for path in (home() / "run").iterdir() if path.is_dir())
    for path in oldest_first[:-KEPT_RUNS]:
        if not _is_owned(path):
            shutil.rmtree(path, ignore_errors=True)  # another run may be deleting it, too


def _is_owned(path: Path) -> bool:
    """Whether the process that made the directory still runs."""
    try:
        return psutil.pid_exists(int((path / _OWNER).read_text()))
    except (OSError, ValueError):
        return False
