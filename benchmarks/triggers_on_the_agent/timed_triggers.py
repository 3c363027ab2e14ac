"""A trigger that says when it fired; on the module path of the triggerers under test."""

import asyncio
import time

from airflow.triggers.base import BaseTrigger, TriggerEvent


class TimedTrigger(BaseTrigger):
    """Fires at a moment (seconds since the epoch), or at once, with the time at which it did."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def serialize(self) -> tuple[str, dict[str, float]]:
        """Return what the trigger can be made from again."""
        return "timed_triggers.TimedTrigger", {"at": self.at}

    async def run(self):  # noqa: ANN201 - as Airflow's own
        """Wait and fire."""
        await asyncio.sleep(max(0.0, self.at - time.time()))
        yield TriggerEvent(time.time())
