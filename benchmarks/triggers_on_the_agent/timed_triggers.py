"""A trigger that says when it fired; on the module path of the triggerers under test."""

import asyncio
import time
from pathlib import Path
from tempfile import gettempdir
from uuid import uuid4

from airflow.triggers.base import BaseTrigger, TriggerEvent


class TimedTrigger(BaseTrigger):
    """
    Fires at a moment (seconds since the epoch), or at once, and leaves the time at which it did in a file.

    Its event would not tell: what a trigger says crosses to the plane sealed.
    """

    def __init__(self, at: float, note: str = "") -> None:
        super().__init__()
        self.at = at
        self.note = note or str(Path(gettempdir()) / f"jetbridge-bench-fired-{uuid4().hex}")

    def serialize(self) -> tuple[str, dict[str, float | str]]:
        """Return what the trigger can be made from again."""
        return "timed_triggers.TimedTrigger", {"at": self.at, "note": self.note}

    async def run(self):  # noqa: ANN201 - as Airflow's own
        """Wait and fire."""
        await asyncio.sleep(max(0.0, self.at - time.time()))
        Path(self.note).write_text(str(time.time()))  # noqa: ASYNC240 - what is measured
        yield TriggerEvent("fired")
