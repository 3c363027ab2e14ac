"""
What an operator can set on any agent.

By flag (``--token-file``) or environment (``JETBRIDGE_AGENT_TOKEN_FILE``); a flag wins.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jetbridge.agent.errors import ExitCode
from jetbridge.contracts import api
from jetbridge.contracts.ids import AGENT_NAME_PATTERN

ENV_PREFIX = "JETBRIDGE_AGENT_"


def default_name() -> str:
    """Return this host's name as a DNS label, which an agent's name must be."""
    label = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower())
    return label[:63].strip("-") or "agent"


def default_data_dir(fields: dict[str, Any]) -> Path:
    """Return ``$XDG_STATE_HOME/jetbridge/<agent's name>``; unset, that is under ``~/.local/state``."""
    state_home = os.environ.get("XDG_STATE_HOME")
    base = Path(state_home) if state_home else Path.home() / ".local" / "state"
    return base / "jetbridge" / str(fields.get("name", "agent"))


def one_per_cpu() -> int:
    """Return the number of CPUs this process may use."""
    return len(os.sched_getaffinity(0))


class AgentSettings(BaseSettings):
    """Settings every agent has. A role's own settings extend this class and share its prefix."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="ignore",
        frozen=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    gateway: str = Field(description="Address of the gateway, for example https://jetbridge.example.com.")
    token_file: Path = Field(
        description="File with the agent token (jb_…). Read at each registration, so it can be replaced."
    )
    ca_file: Path | None = Field(
        default=None, description="CA certificates (PEM) to trust; none means the system's."
    )
    client_cert_file: Path | None = Field(
        default=None, description="Client certificate (PEM) for gateways that ask for one; with its chain."
    )
    client_key_file: Path | None = Field(
        default=None, description="Private key (PEM) of the client certificate. Tasks use it as well."
    )
    allow_http: bool = Field(
        default=False, description="Allow http:// when the gateway is on this very machine. For development."
    )
    name: str = Field(
        default_factory=default_name,
        max_length=63,
        pattern=AGENT_NAME_PATTERN,
        description="Name of this agent, a DNS label, unique among all agents; by default the host's name.",
    )
    site: api.ShortText = Field(default="", max_length=256, description="Where this agent is, for people.")
    queues: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("default",),
        min_length=1,
        max_length=api.MAX_QUEUES,
        description="Airflow queues to serve, separated by commas.",
    )
    slots: int = Field(
        default_factory=one_per_cpu,
        ge=1,
        le=api.MAX_SLOTS,
        description="Workloads to run at the same time; by default one per CPU.",
    )
    labels: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        max_length=64,
        description="Facts about this agent: key=value, separated by commas.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Directory for logs and state, this agent's alone; made when missing.",
    )

    site_key_file: Path | None = Field(
        default=None,
        description="The site's key ('jetbridge site-key create'), the same file on all workers and "
        "triggerers: what deferred tasks carry over is sealed with it, and the plane cannot read it.",
    )

    start_checks: bool = Field(
        default=True,
        description="Do not start when the object store or the secrets backend that is configured does not "
        "answer.",
    )
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of /metrics (Prometheus) and /healthz on all addresses; 0 means none: "
        "nothing can connect to an agent then.",
    )
    termination_log: Path | None = Field(
        default=None,
        description="In a pod: its terminationMessagePath, where the agent leaves which process it is.",
    )

    @field_validator("queues", mode="before")
    @classmethod
    def _split_queues(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(queue for part in value.split(",") if (queue := part.strip())))

    @field_validator("labels", mode="before")
    @classmethod
    def _split_labels(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not key.strip() or not separator for key, separator, _ in pairs):
            raise ValueError("labels have the form key=value,key=value")
        return {key.strip(): text.strip() for key, _, text in pairs}

    @property
    def client_cert(self) -> tuple[Path, Path] | None:
        """Return the client certificate and its key, if there are any."""
        if self.client_cert_file is None or self.client_key_file is None:
            return None
        return self.client_cert_file, self.client_key_file

    @field_validator(
        "ca_file", "client_cert_file", "client_key_file", "data_dir", "site_key_file", "token_file"
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None

    @field_validator("ca_file", "client_cert_file", "client_key_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not os.access(value, os.R_OK):
            raise ValueError(f"{value} cannot be read")
        return value

    @model_validator(mode="after")
    def _client_cert_has_its_key(self) -> Self:
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise ValueError("client_cert_file: give both --client-cert-file and --client-key-file")
        return self

    @model_validator(mode="after")
    def _gateway_is_https(self) -> Self:
        url = urlsplit(self.gateway)
        if url.username or url.password or url.query or url.fragment or not url.hostname:
            raise ValueError("gateway: give https://host[:port][/path] and nothing else")
        if url.scheme == "https" or (url.scheme == "http" and self.allow_http and _is_loopback(url.hostname)):
            return self
        raise ValueError(
            "gateway: the address must begin with https://; "
            "http:// is possible for a gateway on this machine only, together with --allow-http"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


S = TypeVar("S", bound=AgentSettings)


def load_settings(kind: type[S], argv: Sequence[str], *, program: str) -> S:
    """
    Read settings from flags, then the environment; a flag wins.

    Prints what is wrong and raises :class:`SystemExit` with :attr:`ExitCode.USAGE` when they are not good.
    """
    try:
        return kind(_cli_parse_args=list(argv), _cli_prog_name=program)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            print(f"{program}: {_explain(problem)}", file=sys.stderr)  # noqa: T201 - before logging is set up
        print(f"Try '{program} --help'.", file=sys.stderr)  # noqa: T201
        raise SystemExit(ExitCode.USAGE) from error


def _explain(problem: Mapping[str, Any]) -> str:
    text: str = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    field = str(problem["loc"][0])
    return f"--{field.replace('_', '-')} (or {ENV_PREFIX}{field.upper()}): {text}"
