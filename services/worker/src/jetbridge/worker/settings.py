"""What an operator can set on a worker."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from jetbridge.agent.settings import AgentSettings


class WorkerSettings(AgentSettings):
    """Settings of ``jetbridge worker``; like every agent's, from flags and ``JETBRIDGE_AGENT_*``."""

    drain_seconds: float = Field(
        default=600.0,
        ge=0,
        description="After SIGTERM, seconds for running tasks to finish before they are terminated.",
    )
    stop_grace_seconds: float = Field(
        default=10.0,
        ge=0,
        description="Seconds between SIGTERM and SIGKILL for a task that has to end (its on_kill runs).",
    )
    task_memory_mib: int = Field(
        default=0,
        ge=0,
        description="Limit of the memory a task and what it starts may take together; some 100 MiB of it are "
        "shared with the worker. A task that takes more is killed. 0 means no limit of ours.",
    )
    tasks_per_supervisor: int = Field(
        default=50,
        ge=1,
        description="Tasks of one Dag that a supervisor process may run one after another, which saves a "
        "fifth of the worker's CPU time for short tasks. It ends earlier after a task that failed or asked "
        "for a connection or variable. 1 gives every task a supervisor of its own.",
    )
    preload: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Modules to import once instead of in every task, for example pandas, by commas.",
    )

    @field_validator("preload", mode="before")
    @classmethod
    def _split_preload(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(name for part in value.split(",") if (name := part.strip()))
