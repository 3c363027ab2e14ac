"""
What gateways write to Redis and the plane sentinel reads: presence, volatile by nature.

A member of the sorted set stands for one *process* of an agent, so that a process that took over its
predecessor's name does not hide the predecessor's silence. The sentinel only asks whether a member's
score *changed* since it last looked, measured on its own monotonic clock: neither the gateways' clocks
nor Redis' have to be right, and a Redis that came back empty or with old data proves nothing about agents.
"""

from __future__ import annotations

import msgspec

BEATS_BUCKET = "beats"
"""
KV bucket for heartbeats that Redis did not take: ``<agent>/<instance>`` → :class:`Beat`.

A gateway that is cut off from Redis while a sentinel is not would make healthy agents look silent.
"""

BEATS_SECONDS = 3600
"""Life of such a record; many leases long."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """One heartbeat, by the gateway's clock. The sentinel asks only whether its revision changed."""

    at_ms: int


PRESENCE_KEY = "jetbridge:presence"
"""Sorted set: ``<agent>/<instance>`` → time of the last heartbeat, milliseconds by the gateway's clock."""

GATEWAYS_KEY = "jetbridge:gateways"
"""Sorted set: gateway process → time, likewise. Says that somebody could have heard an agent."""

GATEWAY_BEAT_SECONDS = 1.0
"""How often a gateway says so."""


def member_of(agent: str, instance: str) -> str:
    """Return the presence member of one process of an agent."""
    return f"{agent}/{instance}"


def agent_of(member: str) -> tuple[str, str]:
    """Return ``(agent, instance)`` of a presence member; neither name can hold a slash."""
    agent, _, instance = member.partition("/")
    return agent, instance
