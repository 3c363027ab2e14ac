"""
Logs of triggers: a file for each, which goes to the log store when the trigger ends. For Airflow 3.3.

Airflow uploads in the supervisor's loop, and everything waits meanwhile. Here it happens in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import PurePosixPath
from typing import Any

import attrs
import structlog
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory

log = structlog.get_logger(__name__)


@attrs.define(kw_only=True)
class TriggerLog(TriggerLoggingFactory):
    """One trigger's log. Airflow calls ``upload_to_remote`` and ``close`` when the trigger has finished."""

    uploads: Executor = attrs.field(repr=False)
    _ended: bool = attrs.field(init=False, default=False)

    def upload_to_remote(self) -> None:
        """Leave it to :meth:`close`, which always follows."""

    def close(self) -> None:
        """Upload the file and close it, in a thread."""
        if not self._ended and hasattr(self, "bound_logger"):
            self._ended = True
            self.uploads.submit(_end, super().upload_to_remote, super().close)


def _end(upload: Callable[[], Any], close: Callable[[], Any]) -> None:
    try:
        upload()
    except Exception:
        log.exception("a trigger's log was not uploaded; it is still on this agent's disk")
    finally:
        close()


def is_safe(log_path: str) -> bool:
    """Say whether a path from the plane stays below the folder for logs."""
    path = PurePosixPath(log_path)
    return bool(log_path) and not path.is_absolute() and ".." not in path.parts
