"""All agents at a glance: registration, health, orders, leases and what sentinels see, joined."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.connection import Bus
from jetbridge.bus.health import HealthStore, health_key
from jetbridge.bus.orders import OrderStore, is_draining
from jetbridge.bus.sites import open_sites
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.records import (
    AgentRecord,
    Health,
    HealthRecord,
    OrderRecord,
    WorkloadRecord,
    WorkloadState,
)
from jetbridge.contracts.sites import AgentSeen, SiteRecord


class AgentState(StrEnum):
    """
    What an agent is, in one word (design section 5).

    What is wrong with it comes before what is wanted of it. *unknown*: no sentinel has looked yet.
    """

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    CORDONED = "cordoned"
    DRAINING = "draining"
    SUSPECT = "suspect"
    LOST = "lost"
    GONE = "gone"


_WRONG = {
    Health.SUSPECT: AgentState.SUSPECT,
    Health.LOST: AgentState.LOST,
    Health.GONE: AgentState.GONE,
}


def state_of(
    instance: str, health: HealthRecord | None, order: OrderRecord | None, *, says_draining: bool = False
) -> AgentState:
    """Return the state of one process. ``says_draining``: by its own word, after a SIGTERM for example."""
    if health and (wrong := _WRONG.get(health.health)):
        return wrong
    if says_draining or is_draining(order, instance):
        return AgentState.DRAINING
    if order:
        return AgentState.CORDONED
    return AgentState.HEALTHY if health else AgentState.UNKNOWN


@dataclass(frozen=True, kw_only=True)
class AgentView:
    """Everything the plane knows of one agent. ``leases`` are those it holds now."""

    agent: AgentRecord
    health: HealthRecord | None
    order: OrderRecord | None
    leases: tuple[str, ...]
    seen: AgentSeen | None

    @property
    def state(self) -> AgentState:
        """Return what it is, in one word."""
        return state_of(self.agent.instance, self.health, self.order, says_draining=self.agent.draining)

    @property
    def why(self) -> str:
        """Return the best explanation of its state there is, for people; empty when nothing needs one."""
        parts = []
        if self.health and self.health.health is not Health.HEALTHY:
            parts.append(self.health.reason)
        if self.seen and not self.seen.healthy:
            parts.append(f"seen at its site: {self.seen.state} {self.seen.detail}".strip())
        if self.order and self.order.reason:
            parts.append(self.order.reason)
        return "; ".join(parts)


async def read_fleet(bus: Bus) -> list[AgentView]:
    """Return all agents that ever registered, by site and name."""
    agents, health, orders, sites, workloads = await asyncio.gather(
        (await AgentStore.open(bus)).bucket.all(),
        (await HealthStore.open(bus)).bucket.all(),
        (await OrderStore.open(bus)).bucket.all(),
        (await open_sites(bus)).all(),
        (await WorkloadStore.open(bus)).bucket.all(),
    )
    seen, leases = _seen(sites.values()), _leases(workloads.values())
    views = [
        AgentView(
            agent=agent,
            health=health.get(health_key(agent.name, agent.instance)),
            order=orders.get(agent.name),
            leases=tuple(sorted(leases[agent.name])),
            seen=seen.get((agent.site, agent.name)),
        )
        for agent in agents.values()
    ]
    return sorted(views, key=lambda view: (view.agent.site, view.agent.name))


def _leases(workloads: Iterable[WorkloadRecord]) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for record in workloads:
        if record.state is WorkloadState.LEASED and record.agent:
            found[record.agent].append(str(LeaseKey(record.workload_id, record.epoch)))
    return found


def _seen(sites: Iterable[SiteRecord]) -> dict[tuple[str, str], AgentSeen]:
    """Join the reports; of several sentinels of a site, the newest report about an agent counts."""
    newest_last = sorted(sites, key=lambda site: site.at)
    return {(site.site, one.agent): one for site in newest_last for one in site.agents}
