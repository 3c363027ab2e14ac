"""
What runner and supervisor say to each other beyond Airflow's own messages. For Airflow 3.3.

Airflow's runner reports to its supervisor once a second, and hears of changes only then. Ours also leaves a
request open, :class:`AwaitNews`, which the supervisor answers when there is something to hear.

Airflow's messages do not say which trigger they are from. Here each carries the trigger's id in a field of
its own, which the supervisor takes off before Airflow reads the message.
"""

from __future__ import annotations

from typing import Any, Literal

import structlog
from pydantic import BaseModel

TRIGGER_FIELD = "jetbridge_trigger_id"

AWAIT_NEWS = "JetbridgeAwaitNews"


class AwaitNews(BaseModel):
    """Answered by a ``TriggerStateSync`` whose ``to_cancel`` are triggers to release."""

    type: Literal["JetbridgeAwaitNews"] = "JetbridgeAwaitNews"


class Labelled:
    """A message as Airflow's comms send it, with the id of the trigger in whose task it is sent."""

    def __init__(self, message: Any) -> None:
        self._message = message
        # Bound by TriggerRunner.run_trigger for the logs, and inherited by whatever the trigger starts.
        self._trigger_id = structlog.contextvars.get_contextvars().get("trigger_id")

    def model_dump(self) -> dict[str, Any]:
        """Return the frame's body."""
        return {**self._message.model_dump(), TRIGGER_FIELD: self._trigger_id}
