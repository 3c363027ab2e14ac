"""
What is looked at before an agent registers: do the site's own stores and its secrets backend answer.

An agent that is asked to keep secrets and values at the site and cannot would fail every task it takes. It
says so and does not start. The checks need Airflow's configuration as tasks will see it, so they run in a
process of their own with that environment, which ends before anything else begins.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

CHECK_MODULE = "jetbridge.xcom.start_check"
LIMIT_SECONDS = 45.0
"""Clients of clouds try for up to a minute by themselves; importing Airflow takes some seconds of it."""


class StartCheckError(Exception):
    """Something that is configured does not answer; the text says what, and what to look at."""


def run_start_checks(env: Mapping[str, str]) -> None:
    """Check what ``env`` configures; raises :class:`StartCheckError`."""
    command = [sys.executable, "-m", CHECK_MODULE]
    try:
        ended = subprocess.run(  # noqa: S603 - ourselves
            command, env=dict(env), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise StartCheckError(
            f"the site's stores and secrets backend did not answer within {LIMIT_SECONDS:.0f} s"
        ) from exc
    if ended.returncode:
        lines = (
            ended.stdout.strip() or ended.stderr.strip() or "the check ended without a word"
        ).splitlines()
        raise StartCheckError(lines[-1])
