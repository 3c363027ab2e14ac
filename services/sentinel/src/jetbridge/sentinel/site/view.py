"""What a sentinel sees now. Watchers and checks write it; the pages, the report and the deaths read it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from jetbridge.contracts.sites import MAX_SEEN, AgentSeen, CheckSeen

log = structlog.get_logger(__name__)

MAX_DETAIL = 200
MAX_WORD = 32


def seen(  # noqa: PLR0913 - the fields of AgentSeen
    agent: str, *, healthy: bool, state: str, detail: str = "", instance: str = "", role: str = ""
) -> AgentSeen:
    """Return what was seen of an agent, cut to what the contract takes."""
    return AgentSeen(
        agent=agent,
        instance=instance,
        role=role[:MAX_WORD],
        healthy=healthy,
        state=state[:MAX_WORD],
        detail=" ".join(detail.split())[:MAX_DETAIL],
    )


@dataclass(frozen=True)
class Ended:
    """A process of an agent is gone, with all that it started. ``reason`` says how that is known."""

    agent: str
    instance: str
    reason: str


@dataclass
class SiteView:
    """Keyed by whatever a watcher tells agents apart by: a data directory, a pod's uid."""

    _agents: dict[str, AgentSeen] = field(default_factory=dict)
    _checks: dict[str, CheckSeen] = field(default_factory=dict)
    _listeners: list[Callable[[], None]] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)
    ends: asyncio.Queue[Ended] = field(default_factory=asyncio.Queue)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener()`` whenever something is seen that was not so before; it must not block."""
        self._listeners.append(listener)

    @property
    def agents(self) -> tuple[AgentSeen, ...]:
        """Return all agents, those that are not well first, then by name; as many as a report takes."""
        ordered = sorted(self._agents.values(), key=lambda one: (one.healthy, one.agent))
        return tuple(ordered[:MAX_SEEN])

    @property
    def checks(self) -> tuple[CheckSeen, ...]:
        """Return the latest result of each check, by name."""
        return tuple(sorted(self._checks.values(), key=lambda one: one.name))

    @property
    def is_well(self) -> bool:
        """Say whether everything that is seen is as it should be."""
        return all(one.healthy for one in self._agents.values()) and all(
            one.ok for one in self._checks.values()
        )

    def see(self, key: str, agent: AgentSeen) -> None:
        """Take in what is seen of one agent."""
        if self._agents.get(key) != agent:
            self._agents[key] = agent
            level = log.info if agent.healthy else log.warning
            level("agent.seen", seen=agent.agent, state=agent.state, detail=agent.detail)
            self._changed()

    def forget(self, key: str) -> None:
        """Forget an agent that is not there to be seen any more."""
        if self._agents.pop(key, None):
            self._changed()

    def keys(self) -> frozenset[str]:
        """Return the keys under which agents are seen."""
        return frozenset(self._agents)

    def check(self, result: CheckSeen) -> None:
        """Take in the result of a check."""
        before = self._checks.get(result.name)
        if before != result:
            self._checks[result.name] = result
            level = log.info if result.ok else log.warning
            level("check.changed", check=result.name, ok=result.ok, detail=result.detail)
            self._changed()

    def ended(self, end: Ended) -> None:
        """Have the plane told of an end, once."""
        if end.instance not in self._told:
            self._told.add(end.instance)
            log.info("agent.gone", seen=end.agent, instance=end.instance, reason=end.reason)
            self.ends.put_nowait(end)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()
