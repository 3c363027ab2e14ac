"""What an operator can set on a Dag processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import CliSuppress, NoDecode

from jetbridge.agent.settings import AgentSettings


class DagProcessorSettings(AgentSettings):
    """Settings of ``jetbridge dag-processor``; like every agent's, from flags and ``JETBRIDGE_AGENT_*``."""

    bundles: Path = Field(
        description="JSON file with the Dag bundles, in the form of Airflow's [dag_processor] "
        "dag_bundle_config_list. Workers need the same."
    )
    parsing_processes: int = Field(
        default=2, ge=1, le=256, description="Dag files to parse at the same time, as in Airflow."
    )
    parser_memory_mib: int = Field(
        default=2048,
        ge=256,
        description="Limit of the memory a parser may take; a file that needs more is an import error.",
    )
    parser_output_kib: int = Field(
        default=1024,
        ge=16,
        description="What one parse may print or log; the rest is dropped and the log says so.",
    )
    stuck_seconds: float = Field(
        default=900.0,
        ge=60,
        description="Airflow's manager is started anew when its loop has not come round for this long. "
        "Fetching a large repository for the first time counts.",
    )
    stop_seconds: float = Field(
        default=10.0, ge=1, description="After SIGTERM, seconds for parsers and callbacks to end."
    )
    queues: CliSuppress[Annotated[tuple[str, ...], NoDecode]] = Field(
        default=(), description="Not used by a Dag processor."
    )
    slots: CliSuppress[int] = Field(default=0, description="Not used by a Dag processor.")

    @field_validator("bundles")
    @classmethod
    def _has_bundles(cls, value: Path) -> Path:
        path = value.expanduser().absolute()
        try:
            bundles = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(bundles, list) or not bundles or not all(map(_is_bundle, bundles)):
            raise ValueError(
                f'{path} must hold a list of bundles: [{{"name": …, "classpath": …, "kwargs": {{…}}}}]'
            )
        return path


def _is_bundle(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and "classpath" in value
