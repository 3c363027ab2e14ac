"""The whole system on one machine as one context manager, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from jetbridge.devstack import airflow, git, netns, plane, probes, registry
from jetbridge.devstack.agents import Agent, AgentSpec, ExecutionPlane, agent_command
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.home import forget_old_runs, new_run_directory
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.processes import ManagedProcess, Probe, Say, Supervisor, silent
from jetbridge.devstack.rest import AirflowClient
from jetbridge.devstack.servers import nats, postgres, redis, s3
from jetbridge.devstack.tls import Certificates, make_certificates

REMOTE_EXECUTOR = "jetbridge.scheduler.executor.RemoteExecutor"
_LOOPBACK = "127.0.0.1"
_READY_SECONDS = 120.0
_AIRFLOW_POOL_SIZE = 5
"""``[database] sql_alchemy_pool_size``, as Airflow has it by default, of each api-server process."""


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """
    What to start.

    ``agents`` may be empty, and ``gateways`` 0, for a plain Airflow with ``executor`` LocalExecutor.
    ``isolate`` puts each agent in its own network namespace: True insists, False does not try, None
    does it where the machine lets us. ``plane_extra`` is further environment of Airflow's processes on
    the plane; what an agent gets is in its :class:`AgentSpec`. ``lease_seconds`` is how long a silent
    agent keeps its work. With an agent of the role dag-processor the plane has no Dag file; ``git`` puts
    the Dags into a repository that agents read. ``bundles``, in the form of ``dag_bundle_config_list``, is
    used in place of the folder ``dags``. ``policy`` is what the deployment decides, in the words of
    ``jetbridge policy set``. ``nats_max_store`` is what JetStream may reserve, ``8G`` for example, whatever
    the disk has. ``otlp_endpoint`` is where every process sends its traces by OTLP/HTTP. With ``record``
    agents reach the gateways through a relay that writes down what they send.
    """

    dags: Path
    agents: Sequence[AgentSpec] = ()
    executor: str = REMOTE_EXECUTOR
    gateways: int = 2
    api_workers: int = 1
    isolate: bool | None = None
    lease_seconds: float = 120.0
    git: bool = False
    bundles: str = ""
    policy: Sequence[str] = ()
    nats_max_store: str = ""
    otlp_endpoint: str = ""
    record: bool = False
    plane_extra: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    label: str = "stack"

    @property
    def plane_has_dags(self) -> bool:
        """Return whether Airflow's own Dag processor runs, on the plane."""
        return not any(agent.role == "dag-processor" for agent in self.agents)


class DevStack:
    """
    Enter it to start everything and wait until it works; leave it to end everything.

    What it holds is there for tests to ask, kill and restart: the servers ``nats``, ``redis``,
    ``postgres`` and ``s3``, the processes ``airflow``, ``gateways``, ``failover`` (sentinel, router, bridge)
    and ``agents`` (by name), and ``client``, which speaks to Airflow's REST API as an administrator.
    """

    nats: nats.NatsServer
    redis: redis.RedisServer
    postgres: postgres.PostgresServer
    s3: s3.S3Server
    airflow: airflow.Airflow
    client: AirflowClient
    database_url: str

    def __init__(self, options: StackOptions, *, say: Say = silent) -> None:
        self.options = options
        self.directory = options.directory or _new_directory(options.label)
        self.supervisor = Supervisor(self.directory, say=say)
        self.secrets = airflow.Secrets()
        self.plane: plane.Plane | None = None
        self.gateway_url = ""
        self.git: git.GitServer | None = None
        self.gateways: Sequence[ManagedProcess] = ()
        self.failover: dict[str, ManagedProcess] = {}
        self.agents: dict[str, Agent] = {}
        self.not_isolated_because: str | None = None
        self._say = say
        self._namespaces: list[netns.Namespace] = []
        self._agents_ca = Path()
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.supervisor)
            undo.callback(self._say, "stopping")
            self._start(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.__exit__(kind, exc, traceback)

    def check_alive(self) -> None:
        """Raise, with its last log lines, if a process of the stack has died."""
        self.supervisor.check_alive()

    def await_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout_seconds: float,
        check: Callable[[], None] | None = None,
    ) -> str:
        """
        Wait until a run has ended and return its state.

        ``check`` is called at each look and may raise; without it, the death of a process of the stack
        ends the wait.
        """
        ended = {"success", "failed"}
        self.client.wait(
            lambda: self.client.run_state(dag_id, run_id) in ended,
            f"run {run_id} of {dag_id} to end",
            timeout_seconds=timeout_seconds,
            check=check or self.check_alive,
        )
        return self.client.run_state(dag_id, run_id)

    def _start(self, undo: contextlib.ExitStack) -> None:
        host = self._make_network()
        self._start_servers(host)
        if self.options.git:
            self.git = git.start(self.supervisor, self.directory / "git", self.options.dags, host)
            self._say(f"the Dags are in {self.git.url}")
        airflow_url = f"http://{_LOOPBACK}:{free_port()}"
        if self.options.gateways:
            self.plane = self._prepare_plane(airflow_url)
        environment = self._prepare_airflow(airflow_url)
        self.airflow = airflow.Airflow(
            self.supervisor,
            environment,
            api_server_extra=self.plane.api_server_environment if self.plane else {},
            has_dags=self.options.plane_has_dags,
        )
        own = ", dag-processor" if self.options.plane_has_dags else "; Dags are parsed by an agent"
        self._say(f"starting Airflow: api-server, scheduler{own}")
        self.airflow.start()
        if self.plane is not None:
            self._start_jetbridge(self.plane, host, environment)
        self.airflow.wait_ready()
        self.client = AirflowClient(self.airflow.url)
        undo.callback(self.client.close)
        self.client.log_in()
        self._say(f"Airflow answers at {self.airflow.url}")
        self._await_agents()

    def _start_jetbridge(self, prepared: plane.Plane, host: str, environment: Mapping[str, str]) -> None:
        certificates = self._start_gateways(prepared, host)
        self.failover = plane.add_failover(self.supervisor, prepared, environment)
        for process in self.failover.values():
            process.start()
        # Last, so that they stop first: a triggerer hands its triggers back through the bridge.
        self._start_agents(prepared, certificates)

    def _make_network(self) -> str:
        """Make the agents' namespaces where that is possible; returns the address agents can reach."""
        if self.options.isolate is False or not self.options.agents:
            self.not_isolated_because = "not asked for"
            return _LOOPBACK
        self.not_isolated_because = netns.unavailable()
        if self.not_isolated_because is not None:
            if self.options.isolate:
                msg = f"agents cannot have network namespaces of their own here: {self.not_isolated_because}"
                raise DevStackError(msg)
            return _LOOPBACK
        network = netns.Network(lambda name: self.supervisor.tell_guard(f"netns {name}"))
        self.supervisor.on_exit(network.close)
        self._namespaces = [network.add() for _ in self.options.agents]
        return network.plane_address

    def _start_servers(self, host: str) -> None:
        self.postgres, self._migrated = airflow.start_database(self.supervisor)
        self.s3 = s3.start(self.supervisor, host=host)
        found = {"PostgreSQL": self.postgres, "S3": self.s3}
        if self.options.gateways:
            self.nats, self.redis = (
                nats.start(self.supervisor, max_store=self.options.nats_max_store),
                redis.start(self.supervisor),
            )
            found |= {"NATS": self.nats, "Redis": self.redis}
        for name, server in found.items():
            self._say(f"{name} answers ({server.origin})")

    def _prepare_airflow(self, url: str) -> Mapping[str, str]:
        self.database_url = self.postgres.create_database(airflow.DATABASE)
        options = airflow.AirflowOptions(
            executor=self.options.executor,
            dags=self.options.dags,
            bundles=self.options.bundles,
            url=url,
            api_workers=self.options.api_workers,
            has_dags=self.options.plane_has_dags,
            extra={**(self.plane.airflow_environment() if self.plane else {}), **self.options.plane_extra},
        )
        environment = airflow.plane_environment(
            self.directory / "airflow", options, self.database_url, self.secrets
        )
        if not self._migrated:
            self._say("preparing Airflow's database (once; the result is kept)")
            airflow.migrate(self.supervisor, self.postgres, environment)
        return environment

    def _prepare_plane(self, airflow_url: str) -> plane.Plane:
        secret_file = self.directory / "plane" / "airflow-jwt-secret"
        plane.write_secret(secret_file, self.secrets.jwt_secret)
        prepared = plane.Plane(
            self.nats,
            self.redis,
            airflow_url,
            secret_file,
            self.options.lease_seconds,
            self.options.otlp_endpoint,
        )
        plane.apply_topology(self.supervisor, prepared)
        if self.options.policy:
            plane.set_policy(self.supervisor, prepared, self.options.policy)
        self._say("streams and buckets are declared (jetbridge bus apply)")
        return prepared

    def _start_gateways(self, prepared: plane.Plane, host: str) -> Certificates:
        port = free_port(host)
        certificates = make_certificates(self.directory / "tls", host, _LOOPBACK, "localhost")
        environment = prepared.gateway_environment(host, port, certificates) | {
            "JETBRIDGE_GATEWAY_AIRFLOW_CALLS_AT_ONCE": str(self._calls_at_once())
        }
        self.gateways = plane.add_gateways(self.supervisor, environment, self.options.gateways)
        self.gateway_url = f"https://{host}:{port}"
        for gateway in self.gateways:
            gateway.start()
        for gateway in self.gateways:
            gateway.wait_ready(probes.listens(gateway, port), timeout_seconds=_READY_SECONDS)
        self._say(f"{len(self.gateways)} gateways listen at {self.gateway_url}")
        if self.options.record:
            self.gateway_url = self._start_recorder(host, port, certificates)
        return certificates

    def _calls_at_once(self) -> int:
        """Return each gateway's share of the connections that Airflow keeps to its database."""
        return max(2, _AIRFLOW_POOL_SIZE * self.options.api_workers // self.options.gateways)

    @property
    def traffic(self) -> Path:
        """Return the folder in which the relay keeps what agents sent."""
        return self.directory / "traffic"

    def _start_recorder(self, host: str, to_port: int, certificates: Certificates) -> str:
        port = free_port(host)
        recorder = plane.add_recorder(self.supervisor, host, port, to_port, certificates, self.traffic)
        recorder.start()
        recorder.wait_ready(probes.listens(recorder, port), timeout_seconds=_READY_SECONDS)
        return f"https://{host}:{port}"

    def _start_agents(self, prepared: plane.Plane, certificates: Certificates) -> None:
        self._agents_ca = certificates.ca
        for spec, namespace in itertools.zip_longest(self.options.agents, self._namespaces):
            self._start_agent(prepared, spec, namespace)

    def add_agent(self, spec: AgentSpec) -> Agent:
        """Start one more agent, in this host's network, and wait until it is registered."""
        if self.plane is None:
            raise DevStackError("a stack without gateways has no agents")
        agent = self._start_agent(self.plane, spec, None)
        agent.process.wait_ready(self._is_registered(spec.name), timeout_seconds=_READY_SECONDS)
        return agent

    def _start_agent(
        self, prepared: plane.Plane, spec: AgentSpec, namespace: netns.Namespace | None
    ) -> Agent:
        directory = self.directory / "agents" / spec.name
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)  # a test may have mounted something
        token_file = plane.create_token(prepared, spec.name, directory)
        bundles = self.git.bundle_config(airflow.BUNDLE) if self.git else self.options.bundles
        execution_plane = ExecutionPlane(
            self.gateway_url,
            self._agents_ca,
            token_file,
            self.s3,
            self.options.dags,
            bundles,
            self.options.otlp_endpoint,
        )
        command = agent_command(spec, execution_plane, directory, namespace)
        process = self.supervisor.add(f"agent-{spec.name}", command, tier="agents")
        agent = self.agents[spec.name] = Agent(spec, process, namespace)
        process.start()
        return agent

    def _await_agents(self) -> None:
        for name, agent in self.agents.items():
            agent.process.wait_ready(self._is_registered(name), timeout_seconds=_READY_SECONDS)
            self._say(f"agent {name} ({agent.spec.role}) is registered")

    def _is_registered(self, name: str) -> Probe:
        def probe() -> bool:
            self.check_alive()  # an agent waits for ever for a gateway that has died
            return registry.is_registered(self.nats.url, name)

        return probe


def _new_directory(label: str) -> Path:
    directory = new_run_directory(label)
    # Aside, because some file systems take seconds to delete a database's files.
    threading.Thread(target=forget_old_runs, name="forget-old-runs", daemon=True).start()
    return directory
