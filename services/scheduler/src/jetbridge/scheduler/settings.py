"""What can be set about the executor. Where NATS is, is in ``jetbridge.bus.settings``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SchedulerSettings(BaseSettings):
    """Settings of the executor inside Airflow's scheduler, read from ``JETBRIDGE_SCHEDULER_*``."""

    model_config = SettingsConfigDict(env_prefix="JETBRIDGE_SCHEDULER_", extra="ignore")

    submit_concurrency: int = Field(
        default=64,
        ge=1,
        description="Workloads on their way to the bus at the same time. Each waits for two round trips; "
        "one Python process gains nothing above this.",
    )
    idle_wait_seconds: float = Field(
        default=1.0,
        ge=0,
        le=5,
        description="How long the executor waits for an end or a nudge when there is nothing to do, in place "
        "of Airflow's sleep. Only with [scheduler] scheduler_idle_sleep_time = 0 and no other executor.",
    )
    tell_agent_after_seconds: float = Field(
        default=1.0,
        ge=0,
        description="How long an agent must have had a workload before its name becomes the task's "
        "external_executor_id. Telling it costs the scheduler a locked row, which a task that ends sooner "
        "need not pay for; its hostname and its history name the agent anyway.",
    )
    adoption_wait_seconds: float = Field(
        default=10.0,
        gt=0,
        description="How long a starting scheduler asks the bus about running tasks of a dead one. "
        "Without an answer it adopts all of them.",
    )
    stop_wait_seconds: float = Field(
        default=5.0,
        ge=0,
        description="How long a stopping scheduler lets workloads on their way arrive. "
        "What does not arrive is queued again by the next scheduler.",
    )
    abandoned_after_seconds: float = Field(
        default=900.0,
        gt=0,
        description="Age at which a finished workload that no scheduler took note of is cleared away. Longer "
        "than Airflow takes to adopt a dead scheduler's tasks: [scheduler] scheduler_health_check_threshold "
        "(30 s) and orphaned_tasks_check_interval (300 s).",
    )
    sweep_interval_seconds: float = Field(
        default=300.0,
        gt=0,
        description="How often abandoned workloads and markers of deletions are looked for.",
    )
    deletion_marker_seconds: int = Field(
        default=1800,
        ge=1,
        description="Age at which the marker a deletion leaves in NATS is dropped. Longer than any watcher "
        "stays disconnected without reading everything again, which it does after each reconnect.",
    )
