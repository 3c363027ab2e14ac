"""Agents as processes that know the execution plane only, and no secret of the plane."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jetbridge.devstack.airflow import bundle_config
from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.netns import Namespace
from jetbridge.devstack.processes import Command, ManagedProcess
from jetbridge.devstack.servers.s3 import S3Server
from jetbridge.devstack.tracing import otel_environment

_DRAIN_SECONDS = 5.0
"""On one's own machine nobody wants to wait for long tasks to finish after Ctrl-C."""

_STOP_SECONDS = 30.0
"""How long ending what still runs then may take: the task's grace and the upload of its log."""


_COMMANDS = {"sentinel": ("sentinel", "site")}


def _nothing(_store: S3Server) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """
    One agent: a worker, a triggerer (``slots`` are its capacity), a Dag processor or a site's sentinel.

    Workers need queues.

    ``environment`` says what its operator gives its tasks, for example ``AIRFLOW_CONN_…``, once the
    object store's address is known. ``program`` is the ``jetbridge`` to run, of another release for example;
    by default this one's.
    """

    name: str
    role: Literal["worker", "triggerer", "dag-processor", "sentinel"] = "worker"
    queues: Sequence[str] = ("default",)
    slots: int = 4
    site: str = "here"
    environment: Callable[[S3Server], Mapping[str, str]] = _nothing
    program: Path | None = None


@dataclass(frozen=True)
class ExecutionPlane:
    """
    Everything an execution plane is told about the world.

    ``bundles`` is the value of ``dag_bundle_config_list``; without it, it is the folder ``dags``.
    """

    gateway_url: str
    ca_file: Path
    token_file: Path
    store: S3Server
    dags: Path
    bundles: str = ""
    otlp_endpoint: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Return the object store and the Dag bundles, as every agent gets them."""
        return {
            "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": self.store.endpoint_url,
            "JETBRIDGE_OBJECT_STORE_ACCESS_KEY": self.store.access_key,
            "JETBRIDGE_OBJECT_STORE_SECRET_KEY": self.store.secret_key,
            "JETBRIDGE_OBJECT_STORE_REGION": self.store.region,
            "JETBRIDGE_OBJECT_STORE_XCOM_BUCKET": "jetbridge-xcom",
            "JETBRIDGE_OBJECT_STORE_LOGS_BUCKET": "jetbridge-logs",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": self.bundle_config,
            **otel_environment(self.otlp_endpoint),
        }

    @property
    def bundle_config(self) -> str:
        """Return the Dag bundles, as Airflow is told of them."""
        return self.bundles or bundle_config(self.dags)


@dataclass(frozen=True)
class Agent:
    """An agent's process, and the network it lives in (None: this host's)."""

    spec: AgentSpec
    process: ManagedProcess
    namespace: Namespace | None


def agent_command(
    spec: AgentSpec, plane: ExecutionPlane, directory: Path, namespace: Namespace | None
) -> Command:
    """
    Return the command of one agent.

    Its environment is built from nothing: what any program needs, the execution plane's own, and what
    the agent's operator adds. The token is in a file, whose name alone is public.
    """
    options = {
        "--gateway": plane.gateway_url,
        "--ca-file": str(plane.ca_file),
        "--token-file": str(plane.token_file),
        "--name": spec.name,
        "--site": spec.site,
        "--data-dir": str(directory),
        **_options_of_role(spec, plane, directory),
    }
    own = (
        plane.environment | {"AIRFLOW_HOME": str(directory / "airflow")} | dict(spec.environment(plane.store))
    )
    prefix = namespace.prefix if namespace else ()
    jetbridge = spec.program or Path(sys.executable).parent / "jetbridge"
    words = [word for option in options.items() for word in option]
    return Command(
        argv=[*prefix, jetbridge, *_COMMANDS.get(spec.role, (spec.role,)), *words],
        env=base_environment(own),
        stop_seconds=_DRAIN_SECONDS + _STOP_SECONDS,
    )


def _options_of_role(spec: AgentSpec, plane: ExecutionPlane, directory: Path) -> dict[str, str]:
    if spec.role == "dag-processor":
        bundles = directory / "bundles.json"
        bundles.write_text(plane.bundle_config)
        return {"--bundles": str(bundles), "--stop-seconds": str(_DRAIN_SECONDS)}
    if spec.role == "sentinel":
        return {"--watch-dirs": str(directory.parent / "*"), "--listen-port": "0"}
    queues = {"--queues": ",".join(spec.queues)} if spec.queues else {}
    if spec.role == "triggerer":
        return queues | {"--capacity": str(spec.slots), "--stop-seconds": str(_DRAIN_SECONDS)}
    return queues | {"--slots": str(spec.slots), "--drain-seconds": str(_DRAIN_SECONDS)}
