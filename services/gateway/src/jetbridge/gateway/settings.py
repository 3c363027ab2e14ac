"""Everything about the gateway that a deployment may decide, from ``JETBRIDGE_GATEWAY_*``."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jetbridge.contracts.api import MAX_WAIT_SECONDS
from jetbridge.contracts.scopes import networks
from jetbridge.gateway.execution_rules import OtherDags


class GatewaySettings(BaseSettings):
    """
    Settings of one gateway process. Where NATS is, is in ``BusSettings`` (``JETBRIDGE_NATS_*``).

    Secrets are read from files, never from arguments, so that no process list shows one.
    """

    model_config = SettingsConfigDict(env_prefix="JETBRIDGE_GATEWAY_", extra="ignore", frozen=True)

    host: str = Field(default="0.0.0.0", description="Address to listen on.")  # noqa: S104 - agents are elsewhere
    port: int = Field(default=8443, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    tls_cert_file: Path | None = Field(default=None, description="Certificate chain, PEM.")
    tls_key_file: Path | None = Field(default=None, description="Private key of the certificate, PEM.")
    tls_client_ca_file: Path | None = Field(
        default=None,
        description="CA of client certificates, PEM. When set, nobody connects without one; probes neither.",
    )
    status_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port on which /healthz, /readyz and /metrics are served without TLS as well, for probes "
        "and a Prometheus that have no client certificate; 0: none.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Networks of the proxies in front, separated by commas (10.0.0.0/8). Only theirs is the "
        "X-Forwarded-For that is believed.",
    )
    allow_plaintext: bool = Field(
        default=False, description="Speak HTTP without TLS; taken only together with a loopback host."
    )
    reuse_port: bool = Field(
        default=False, description="Share the port with other gateway processes (SO_REUSEPORT)."
    )

    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias=AliasChoices("JETBRIDGE_REDIS_URL", "redis_url"),
        description="Redis for the presence of agents; set as JETBRIDGE_REDIS_URL.",
    )
    redis_timeout_seconds: float = Field(default=1.0, gt=0, description="Limit of one write to Redis.")

    airflow_url: HttpUrl = Field(
        default=HttpUrl("http://127.0.0.1:8080"),
        description="Airflow's api-server; its Execution API is below /execution/ of that.",
    )
    airflow_ca_file: Path | None = Field(default=None, description="CA of the api-server's certificate.")
    airflow_jwt_secret_file: Path | None = Field(
        default=None, description="File with Airflow's [api_auth] jwt_secret."
    )
    airflow_jwt_private_key_file: Path | None = Field(
        default=None, description="Airflow's [api_auth] jwt_private_key_path, instead of the secret."
    )
    airflow_jwt_algorithm: str = Field(default="GUESS", description="Airflow's [api_auth] jwt_algorithm.")
    airflow_jwt_kid: str | None = Field(default=None, description="Airflow's [api_auth] jwt_kid.")
    airflow_jwt_issuer: str | None = Field(default=None, description="Airflow's [api_auth] jwt_issuer.")
    airflow_jwt_audience: str = Field(
        default="urn:airflow.apache.org:task",
        description="The first of Airflow's [execution_api] jwt_audience; the default is Airflow's own.",
    )
    airflow_jwt_seconds: float = Field(
        default=600.0,
        ge=60,
        description="Life of tokens for Airflow, as [execution_api] jwt_expiration_time.",
    )
    airflow_connect_seconds: float = Field(default=5.0, gt=0, description="Limit of connecting to Airflow.")
    airflow_response_seconds: float = Field(
        default=55.0,
        gt=0,
        description="Limit of one proxied request; below the 60 s after which Airflow's client gives up.",
    )
    airflow_connections: int = Field(default=100, ge=1, description="Connections kept to Airflow at most.")
    airflow_calls_at_once: int = Field(
        default=8,
        ge=1,
        description="Calls of tasks that Airflow works on at once; the others wait their turn. Best is "
        "[database] sql_alchemy_pool_size (5) for each api-server process, divided by the gateways.",
    )

    other_dags: Annotated[tuple[OtherDags, ...], NoDecode] = Field(
        default=(OtherDags.STATES, OtherDags.TRIGGER),
        description="What tasks may ask about other Dags than their own, separated by commas: states, "
        "trigger (start and clear runs), runs (in full, with their conf), xcoms, assets (events and "
        "stores of assets that are neither their inlets nor outlets).",
    )

    require_scopes: bool = Field(
        default=False, description="Refuse to register agents with a token that has no scopes at all."
    )
    registrations_per_minute: int = Field(
        default=600,
        ge=1,
        description="Registrations of one token, and from one address, that are taken in a minute.",
    )
    failed_logins_per_minute: int = Field(
        default=60,
        ge=1,
        description="Refused tokens from one address in a minute; beyond it the answer is 429.",
    )

    credential_seconds: float = Field(default=900.0, ge=60, description="Life of an agent's credential.")
    heartbeat_interval_seconds: float = Field(default=5.0, gt=0, description="How often agents report.")
    lease_seconds: float = Field(
        default=120.0, gt=0, description="How long an agent without contact to the plane may go on."
    )
    poll_wait_seconds: float = Field(
        default=30.0, gt=0, le=MAX_WAIT_SECONDS, description="How long agents are told to have polls held."
    )

    max_body_bytes: int = Field(
        default=1 << 20, ge=1024, description="Largest body of a heartbeat or poll; 10,000 leases fit."
    )
    max_execution_body_bytes: int = Field(
        default=4 << 20, ge=1024, description="Largest body passed on to Airflow's Execution API."
    )
    xcom_reference_prefixes: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="What XCom values of another backend than ours may begin with, by commas, for example "
        "gs://site-xcom/; they count as references.",
    )
    max_header_bytes: int = Field(
        default=32 << 10, ge=4096, description="Largest request line and headers together."
    )
    read_seconds: float = Field(
        default=10.0, gt=0, description="Limit of receiving a request's headers, and again its body."
    )

    drain_notice_seconds: float = Field(
        default=1.0,
        ge=0,
        description="After SIGTERM: how long /readyz says no before new connections are refused.",
    )
    drain_seconds: float = Field(
        default=30.0, gt=0, description="After SIGTERM: limit for requests in flight to finish."
    )

    @property
    def airflow_base(self) -> str:
        """Return ``airflow_url`` without a slash at its end."""
        return str(self.airflow_url).rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        networks(value)
        return value

    @field_validator("other_dags", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))

    @field_validator("xcom_reference_prefixes", mode="before")
    @classmethod
    def _split_prefixes(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        prefixes = tuple(prefix for part in value.split(",") if (prefix := part.strip()))
        if any("://" not in prefix or prefix.endswith("://") for prefix in prefixes):
            raise ValueError("a prefix is scheme://place, for example gs://site-xcom/")
        return prefixes

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("set both tls_cert_file and tls_key_file")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        if self.tls_cert_file or (self.allow_plaintext and _is_loopback(self.host)):
            return self
        if self.allow_plaintext:
            raise ValueError(
                f"allow_plaintext is taken on a loopback host only, not on {self.host!r}; "
                "set tls_cert_file and tls_key_file"
            )
        raise ValueError("set tls_cert_file and tls_key_file; agents are served over TLS only")

    @model_validator(mode="after")
    def _check_signing_key(self) -> Self:
        if (self.airflow_jwt_secret_file is None) == (self.airflow_jwt_private_key_file is None):
            raise ValueError(
                "set exactly one of airflow_jwt_secret_file and airflow_jwt_private_key_file, "
                "whichever Airflow itself signs with ([api_auth] in its configuration)"
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
