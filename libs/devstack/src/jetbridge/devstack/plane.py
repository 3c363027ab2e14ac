"""Jetbridge's own processes on the orchestration plane."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jetbridge.contracts.boundary import CLASSES, Handling
from jetbridge.devstack import registry
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.processes import Command, ManagedProcess, Supervisor
from jetbridge.devstack.servers.nats import NatsServer
from jetbridge.devstack.servers.redis import RedisServer
from jetbridge.devstack.tls import Certificates
from jetbridge.devstack.tracing import airflow_tracing, named, otel_environment

_COMMAND_SECONDS = 60.0
EVERYTHING_OPEN = tuple(
    f"boundary.{data}=open" for data, rules in CLASSES.items() if rules.closed is not Handling.ALWAYS
)
"""Policies under which the plane gets all that stock Airflow's would; see ``docs/boundary.md``."""

JETBRIDGE = Path(sys.executable).parent / "jetbridge"


@dataclass(frozen=True)
class Plane:
    """What the plane's processes are told: the bus, Redis and where Airflow is."""

    nats: NatsServer
    redis: RedisServer
    airflow_url: str
    jwt_secret_file: Path
    lease_seconds: float = 120.0
    otlp_endpoint: str = ""

    @property
    def api_server_environment(self) -> dict[str, str]:
        """Return what the api-server needs to say in its Log tab which agent has a task's log."""
        return {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "jetbridge.scheduler.logging_config.LOGGING_CONFIG"}

    @property
    def bus_environment(self) -> dict[str, str]:
        """Return what gives a process access to the bus."""
        return {"JETBRIDGE_NATS_URL": self.nats.url}

    def airflow_environment(self) -> dict[str, str]:
        """Return what Airflow's processes need for ours beside them, as the README advises."""
        # The executor waits for events in place of this sleep.
        return {
            **self.bus_environment,
            **airflow_tracing(self.otlp_endpoint),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0",
        }

    def gateway_environment(self, host: str, port: int, certificates: Certificates) -> dict[str, str]:
        """Return the environment of a gateway process that shares ``port`` with others."""
        return base_environment(
            self.bus_environment
            | otel_environment(self.otlp_endpoint)
            | {
                "JETBRIDGE_REDIS_URL": self.redis.url,
                "JETBRIDGE_GATEWAY_HOST": host,
                "JETBRIDGE_GATEWAY_PORT": str(port),
                "JETBRIDGE_GATEWAY_REUSE_PORT": "true",
                "JETBRIDGE_GATEWAY_TLS_CERT_FILE": str(certificates.certificate),
                "JETBRIDGE_GATEWAY_TLS_KEY_FILE": str(certificates.key),
                "JETBRIDGE_GATEWAY_AIRFLOW_URL": self.airflow_url,
                "JETBRIDGE_GATEWAY_AIRFLOW_JWT_SECRET_FILE": str(self.jwt_secret_file),
                "JETBRIDGE_GATEWAY_LEASE_SECONDS": str(self.lease_seconds),
            }
        )

    def sentinel_environment(self) -> dict[str, str]:
        """Return the environment of a plane sentinel that counts as the gateways do."""
        return base_environment(
            self.bus_environment
            | otel_environment(self.otlp_endpoint)
            | {
                "JETBRIDGE_REDIS_URL": self.redis.url,
                "JETBRIDGE_SENTINEL_LEASE_SECONDS": str(self.lease_seconds),
            }
        )

    def command(self, *arguments: str) -> Command:
        """Return a ``jetbridge`` command with access to the bus."""
        env = base_environment(self.bus_environment | otel_environment(self.otlp_endpoint))
        return Command(argv=[JETBRIDGE, *arguments], env=env)


def write_secret(path: Path, secret: str) -> None:
    """Write a secret into a file that only this user may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(secret)


def apply_topology(supervisor: Supervisor, plane: Plane) -> None:
    """Declare streams and buckets, as the one owner does before any service starts."""
    supervisor.run("bus-apply", plane.command("bus", "apply"), timeout_seconds=_COMMAND_SECONDS)


def set_policy(supervisor: Supervisor, plane: Plane, words: Sequence[str]) -> None:
    """Decide for the whole deployment, in the words of ``jetbridge policy set``."""
    command = plane.command("policy", "set", "deployment", *words)
    supervisor.run("policy-set", command, timeout_seconds=_COMMAND_SECONDS)


def create_token(plane: Plane, name: str, directory: Path) -> Path:
    """Have an agent token made and return the private file it was written to; no log ever holds it."""
    # Not by `jetbridge token create`: a process for each agent is a second of computing, tests make hundreds.
    path = directory / f"{name}.token"
    write_secret(path, registry.new_token(plane.nats.url, name))
    return path


def add_gateways(supervisor: Supervisor, environment: dict[str, str], count: int) -> Sequence[ManagedProcess]:
    """Add ``count`` gateway processes of the same environment and so of the same address."""
    command = Command(argv=[JETBRIDGE, "gateway"], env=environment, stop_seconds=20.0)
    return [supervisor.add(f"gateway-{number}", command, tier="plane") for number in range(1, count + 1)]


def add_recorder(  # noqa: PLR0913, PLR0917 - two addresses, the keys, and where to write
    supervisor: Supervisor,
    host: str,
    port: int,
    to_port: int,
    certificates: Certificates,
    directory: Path,
) -> ManagedProcess:
    """Add a relay in front of the gateways that holds their TLS key and writes down what agents send."""
    options = {
        "--host": host,
        "--port": str(port),
        "--to-host": host,
        "--to-port": str(to_port),
        "--certificate": str(certificates.certificate),
        "--key": str(certificates.key),
        "--ca": str(certificates.ca),
        "--directory": str(directory),
    }
    words = [word for option in options.items() for word in option]
    argv = [sys.executable, "-m", "jetbridge.devstack.recorder", *words]
    return supervisor.add("recorder", Command(argv=argv, env=base_environment()), tier="plane")


def add_failover(
    supervisor: Supervisor, plane: Plane, airflow_environment: Mapping[str, str]
) -> dict[str, ManagedProcess]:
    """Add what finds lost agents, takes their work back and has Airflow queue it again."""
    commands = {
        "sentinel": Command(argv=[JETBRIDGE, "sentinel", "plane"], env=plane.sentinel_environment()),
        "router": plane.command("router"),
        "bridge": Command(
            argv=[JETBRIDGE, "bridge"], env=named(airflow_environment, "jetbridge-bridge"), stop_seconds=20.0
        ),
    }
    return {name: supervisor.add(name, command, tier="plane") for name, command in commands.items()}
