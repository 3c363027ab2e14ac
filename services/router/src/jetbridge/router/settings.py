"""Everything about the router that a deployment may decide, from ``JETBRIDGE_ROUTER_*``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RouterSettings(BaseSettings):
    """Settings of one router. Where NATS is, is in ``BusSettings`` (``JETBRIDGE_NATS_*``)."""

    model_config = SettingsConfigDict(env_prefix="JETBRIDGE_ROUTER_", extra="ignore", frozen=True)

    round_interval_seconds: float = Field(
        default=5.0, gt=0, description="A round is made this often even when nothing changed."
    )
    bridge_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Limit of one request to the bridge."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /metrics (Prometheus) and /healthz; 0 means none."
    )
