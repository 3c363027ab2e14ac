"""What an operator can set on the sentinel of a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import CliSuppress, NoDecode

from jetbridge.agent.settings import AgentSettings, default_name
from jetbridge.contracts import api
from jetbridge.contracts.ids import AGENT_NAME_PATTERN


class SiteSentinelSettings(AgentSettings):
    """Settings of ``jetbridge sentinel site``; like every agent's, from flags and ``JETBRIDGE_AGENT_*``."""

    site: api.ShortText = Field(
        min_length=1, max_length=256, description="Where this agent is. A sentinel speaks for agents there."
    )
    name: str = Field(
        default_factory=lambda: f"{default_name()[:54]}-sentinel",
        max_length=63,
        pattern=AGENT_NAME_PATTERN,
        description="Name of this agent, a DNS label; by default the host's name and -sentinel.",
    )
    queues: CliSuppress[Annotated[tuple[str, ...], NoDecode]] = Field(
        default=(), description="Not used by a sentinel."
    )
    slots: CliSuppress[int] = Field(default=1, description="Not used by a sentinel.")
    site_key_file: CliSuppress[Path | None] = Field(default=None, description="Not used by a sentinel.")
    start_checks: CliSuppress[bool] = Field(
        default=False, description="Not used by a sentinel, which checks again and again."
    )
    watch: Literal["processes", "pods"] = Field(
        default="processes",
        description="What agents are here: processes of this machine, or pods of a Kubernetes namespace.",
    )
    watch_dirs: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("~/.local/state/jetbridge/*",),
        description="For processes: data directories of the agents, as patterns, separated by commas.",
    )
    namespace: str = Field(default="", description="For pods: the namespace; empty for the sentinel's own.")
    pod_selector: str = Field(
        default="app.kubernetes.io/name=jetbridge-agents",
        description="For pods: labels of the agents' pods, name=value, separated by commas.",
    )
    look_interval_seconds: float = Field(
        default=1.0, gt=0, description="How often new agents are looked for, and known ones looked at."
    )
    check_interval_seconds: float = Field(
        default=60.0, gt=0, description="How often the XCom store and the secrets backend are asked."
    )
    check_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Limit of one such check. What takes longer does not answer."
    )
    listen_host: str = Field(
        default="127.0.0.1", description="Address of /status, /metrics and /healthz; in a pod 0.0.0.0."
    )
    listen_port: int = Field(default=9465, ge=0, le=65535, description="Their port; 0 takes a free one.")

    @field_validator("watch_dirs", mode="before")
    @classmethod
    def _split_dirs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part for text in value.split(",") if (part := text.strip()))
