"""What an operator can set on a triggerer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import CliSuppress, NoDecode

from jetbridge.agent.settings import AgentSettings
from jetbridge.contracts import api
from jetbridge.contracts.triggering import MAX_CAPACITY


class TriggererSettings(AgentSettings):
    """Settings of ``jetbridge triggerer``; like every agent's, from flags and ``JETBRIDGE_AGENT_*``."""

    capacity: int = Field(
        default=1000, ge=1, le=MAX_CAPACITY, description="Triggers to run at the same time, as in Airflow."
    )
    queues: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=api.MAX_QUEUES,
        description="Run only triggers of these queues, separated by commas. None means triggers without a "
        "queue, which are all unless [triggerer] queues_enabled is set on the workers.",
    )
    slots: CliSuppress[int] = Field(default=1, description="Not used by a triggerer; see capacity.")
    request_threads: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Requests of triggers to Airflow (variables, XComs, …) on their way at the same time.",
    )
    stop_seconds: float = Field(
        default=10.0,
        ge=0,
        description="After SIGTERM, limit for triggers to clean up, for logs to be uploaded, "
        "and for events to be delivered, each.",
    )
