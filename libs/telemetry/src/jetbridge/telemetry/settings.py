"""What the environment may change about logs. Traces use OpenTelemetry's own ``OTEL_*`` names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class TelemetrySettings(BaseSettings):
    """``JETBRIDGE_LOG_LEVEL`` and ``JETBRIDGE_LOG_FORMAT``."""

    model_config = SettingsConfigDict(
        use_attribute_docstrings=True, env_prefix="JETBRIDGE_", extra="ignore", frozen=True
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """The least important lines that are written."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """JSON lines, or a console for people; ``auto`` takes the console when stderr is a terminal."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value
