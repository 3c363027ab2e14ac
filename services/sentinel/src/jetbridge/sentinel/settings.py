"""Everything about the plane sentinel that a deployment may decide, from ``JETBRIDGE_SENTINEL_*``."""

from __future__ import annotations

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class SentinelSettings(BaseSettings):
    """Settings of one plane sentinel. Where NATS is, is in ``BusSettings`` (``JETBRIDGE_NATS_*``)."""

    model_config = SettingsConfigDict(env_prefix="JETBRIDGE_SENTINEL_", extra="ignore", frozen=True)

    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias=AliasChoices("JETBRIDGE_REDIS_URL", "redis_url"),
        description="Redis with the presence of agents; set as JETBRIDGE_REDIS_URL.",
    )
    redis_timeout_seconds: float = Field(default=1.0, gt=0, description="Limit of one read from Redis.")
    heartbeat_interval_seconds: float = Field(
        default=5.0, gt=0, description="As the gateways' setting of the same name."
    )
    lease_seconds: float = Field(
        default=120.0,
        gt=0,
        description="Silence after which an agent's leases are over; not below the gateways'.",
    )
    forget_seconds: float = Field(
        default=24 * 3600.0, gt=0, description="Silence after which an agent is no longer listed."
    )
    look_interval_seconds: float = Field(default=1.0, gt=0, description="How often presence is read.")
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /metrics (Prometheus) and /healthz; 0 means none."
    )
