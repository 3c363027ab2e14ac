"""Where the bus is."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BusSettings(BaseSettings):
    """Settings of the connection to NATS, read from ``JETBRIDGE_NATS_*``."""

    model_config = SettingsConfigDict(env_prefix="JETBRIDGE_NATS_", extra="ignore")

    url: str = Field(
        default="nats://127.0.0.1:4222",
        description="Address of the NATS server, or several separated by commas.",
    )
    credentials_file: Path | None = Field(
        default=None, description="NATS credentials file (JWT and key); none means no authentication."
    )
    ca_file: Path | None = Field(
        default=None, description="CA that signed the server's certificate; none means the system's."
    )
    connect_timeout_seconds: float = Field(default=5.0, gt=0, description="Limit of one connection attempt.")
    request_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Limit of one JetStream request, for example a KV write."
    )
    replicas: int = Field(
        default=1, ge=1, le=5, description="Copies of each stream and bucket; 3 in a NATS cluster of three."
    )
