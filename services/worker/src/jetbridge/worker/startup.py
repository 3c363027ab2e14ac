"""
How long a task took to start: from the confirmed lease until its own process first speaks to its supervisor.

By then that process has read its Dag file: tasks speak right before their code runs, to tell what was
rendered. A Dag file that asks for a variable at its top level speaks a little earlier.
"""

from __future__ import annotations

import time

from jetbridge.telemetry.measures import TASK_STARTUP_SECONDS, tell


class Clock:
    """Measures one task's start, in its supervisor."""

    def __init__(self) -> None:
        self._begun_at = 0.0

    def begin(self, accepted_at: float) -> None:
        """Begin at ``accepted_at`` (CLOCK_MONOTONIC); 0 means that there is nothing to measure."""
        self._begun_at = accepted_at

    def spoken(self) -> None:
        """Note that the task spoke; only the first time counts."""
        if self._begun_at:
            tell(TASK_STARTUP_SECONDS, time.monotonic() - self._begun_at)
            self._begun_at = 0.0


clock = Clock()
"""This supervisor's."""
