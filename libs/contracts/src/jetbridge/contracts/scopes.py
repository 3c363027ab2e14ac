"""
What an agent token may be used for. Pure.

A scope that is not given does not restrict: tokens made before there were scopes have none. A name in
``sites``, ``queues`` or ``bundles`` is taken literally, or as a beginning when it ends in ``*``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from jetbridge.contracts.api import Role

MAX_SCOPES = 256
"""Names in one scope; a record of a bucket has 64 KiB."""

EVERYWHERE = ("0.0.0.0/0", "::/0")
"""The networks that every address is in."""

Names = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=MAX_SCOPES)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TokenScopes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Roles, sites, queues and bundles an agent may register for, and the networks it may do so from.

    ``cidrs`` are networks as ``10.0.0.0/8``; an IPv4 address that arrives as IPv6 counts as IPv4.
    """

    roles: Annotated[tuple[Role, ...], Meta(max_length=8)] = ()
    sites: Names = ()
    queues: Names = ()
    bundles: Names = ()
    cidrs: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=64)] = ()


def is_restricted(scopes: TokenScopes) -> bool:
    """Say whether any scope is given."""
    return scopes != TokenScopes()


def outside(names: Iterable[str], scope: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``names`` that a scope does not have."""
    return tuple(name for name in names if scope and not any(_matches(name, entry) for entry in scope))


def _matches(name: str, entry: str) -> bool:
    return name.startswith(entry[:-1]) if entry.endswith("*") else name == entry


def is_within(address: str, cidrs: tuple[str, ...]) -> bool:
    """Say whether an address is in one of the networks; no networks mean everywhere, no address nowhere."""
    if not cidrs:
        return True
    parsed = _address(address)
    return parsed is not None and any(
        parsed.version == network.version and parsed in network for network in networks(cidrs)
    )


@lru_cache(maxsize=1024)
def networks(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    """Return the networks; raises ``ValueError`` for what is none, also for ``10.1.2.3/8``."""
    return tuple(ipaddress.ip_network(cidr) for cidr in cidrs)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
