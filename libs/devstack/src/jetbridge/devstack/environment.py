"""Environments of child processes, built from an allow list and never inherited wholesale."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
"""
What any program needs and no secret hides in. Everything else a process shall know is named by the
one who starts it, so that a secret in the developer's shell reaches no child by accident.
"""


def base_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the passed-on variables that are set here, with this interpreter's scripts first on PATH."""
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    scripts = str(Path(sys.executable).parent)
    env["PATH"] = os.pathsep.join([scripts, env.get("PATH", os.defpath)])
    env["PYTHONUNBUFFERED"] = "1"  # so that a log file has the last words of a killed process
    return env | dict(extra or {})
