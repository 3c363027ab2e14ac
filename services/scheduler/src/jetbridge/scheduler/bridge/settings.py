"""Everything about the bridge that a deployment may decide, from ``JETBRIDGE_BRIDGE_*``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BridgeSettings(BaseSettings):
    """Settings of one bridge process. NATS is in ``BusSettings``, the database in Airflow's configuration."""

    model_config = SettingsConfigDict(env_prefix="JETBRIDGE_BRIDGE_", extra="ignore", frozen=True)

    threads: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Requests handled at the same time, each with one database connection. "
        "Keep it below [database] sql_alchemy_pool_size + sql_alchemy_max_overflow (5 + 10 in Airflow).",
    )
    max_waiting: int = Field(
        default=256, ge=1, description="Requests that wait for a thread; more wait in NATS' client."
    )
    triggerer_lost_after_seconds: float = Field(
        default=30.0,
        ge=3.0,
        description="A triggerer agent that was silent for this long loses its triggers to others; "
        "as Airflow's [triggerer] triggerer_health_check_threshold.",
    )
    result_cache_bytes: int = Field(
        default=128 << 20,
        ge=0,
        description="Memory for the last parsing results, compressed: an agent does not send an unchanged "
        "one again. 10,000 Dag files take about 10 MB.",
    )
    drain_seconds: float = Field(
        default=20.0, gt=0, description="After SIGTERM: limit for requests in flight to finish."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /metrics (Prometheus) and /healthz; 0 means none."
    )
