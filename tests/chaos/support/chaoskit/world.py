"""The stack that all scenarios share, and how it is put in order after each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaoskit.burst import Burst
from chaoskit.bus import set_policy
from chaoskit.recovery import Recoveries
from jetbridge.contracts.policies import FailoverPolicy
from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.probes import listens
from jetbridge.devstack.processes import ManagedProcess
from jetbridge.devstack.servers.handle import ProcessLifecycle
from jetbridge.devstack.stack import DevStack, StackOptions

DAGS = Path(__file__).parents[2] / "dags"
LEASE_SECONDS = 15.0
"""The shortest there is, so that scenarios that wait for a lease are bearable."""

SLOTS = 4
AGENTS = (AgentSpec(name="one", slots=SLOTS), AgentSpec(name="two", slots=SLOTS))
SERVERS = ("nats", "redis", "postgres")


@dataclass
class World:
    """A stack with two of everything that may be replicated, and a place for marks."""

    stack: DevStack
    recoveries: Recoveries
    directory: Path
    second: dict[str, ManagedProcess]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _bursts: list[Burst] = field(default_factory=list)

    def burst(
        self,
        scenario: str,
        *,
        width: int = SLOTS,
        seconds: float = 0.0,
        hold: bool = True,
        dag_id: str = "burst",
        recoveries: Recoveries | None = None,
    ) -> Burst:
        """Begin a burst; see :class:`Burst`. ``scenario`` is its row in the table of recovery times."""
        directory = self.directory / f"burst-{next(self._numbers)}"
        directory.mkdir()
        burst = Burst(scenario, self.stack, directory, recoveries or self.recoveries, width, dag_id)
        self._bursts.append(burst)
        burst.trigger(seconds=seconds, hold=hold)
        return burst

    def plane(self, name: str) -> list[ManagedProcess]:
        """Return the replicas of a part of the plane: gateway, router, sentinel, bridge or scheduler."""
        if name == "gateway":
            return list(self.stack.gateways)
        if name == "scheduler":
            return [self.stack.airflow.scheduler]
        if name == "api-server":
            return [self.stack.airflow.api_server]
        second = [self.second[name]] if name in self.second else []
        return [self.stack.failover[name], *second]

    def restart(self, part: str) -> None:
        """Kill every replica of a part of the plane and start it again."""
        for process in self.plane(part):
            process.kill()
        self.start_again(part)

    def start_again(self, name: str) -> None:
        """Start what is dead of a part of the plane, or a server, and wait until it answers."""
        if name in SERVERS:
            getattr(self.stack, name).start()
            return
        for process in self.plane(name):
            process.start()
        if name == "gateway":
            for process in self.plane(name):
                process.wait_ready(listens(process, urlsplit(self.stack.gateway_url).port))
        if name == "api-server":
            self.stack.airflow.wait_ready()

    def start_agent(self, process: ManagedProcess) -> None:
        """Start an agent that is dead and wait until this process of it has registered."""
        begin = process.log_path.stat().st_size
        process.start()
        process.wait_ready(lambda: b"registered with the gateway" in process.log_path.read_bytes()[begin:])

    def set_policy(self, scope: str, **fields: Any) -> None:
        """Make the failover policy of a scope exactly this."""
        set_policy(self.stack.nats.url, scope, FailoverPolicy(**fields))

    def mend(self) -> None:
        """
        Start again whatever a scenario left dead, and wait until it can be used.

        What a scenario that failed still holds is let go, so that the next one has the slots.
        """
        while self._bursts:
            self._bursts.pop().let_go()
        for name in SERVERS:
            lifecycle = getattr(self.stack, name).lifecycle
            if isinstance(lifecycle, ProcessLifecycle) and not lifecycle.process.alive:
                self.start_again(name)
        for part in ("gateway", "router", "sentinel", "bridge", "scheduler", "api-server"):
            self.start_again(part)
        for agent in self.stack.agents.values():
            agent.process.start()


@contextmanager
def make_world(directory: Path, recoveries: Recoveries) -> Iterator[World]:
    """Start the stack; two routers and two sentinels, which :class:`DevStack` has one of."""
    options = StackOptions(
        dags=DAGS, agents=AGENTS, lease_seconds=LEASE_SECONDS, directory=directory / "stack"
    )
    with DevStack(options) as stack:
        second = {
            name: stack.supervisor.add(f"{name}-2", stack.failover[name].command, tier="plane")
            for name in ("router", "sentinel")
        }
        for process in second.values():
            process.start()
        for dag_id in ("burst", "urgent", "stranded"):
            stack.client.await_dag(dag_id)
            stack.client.unpause(dag_id)
        (directory / "marks").mkdir()
        yield World(stack, recoveries, directory / "marks", second)
