"""
Where a request comes from: the client's address and certificate.

A proxy in front of a gateway hides the client and says who it is in ``X-Forwarded-For``, to which each proxy
appends whom it saw. So the list is believed from its right end, as far as it was written by proxies that
the settings name; what stands further left was written by whoever liked to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import Scope

from jetbridge.contracts.scopes import EVERYWHERE, is_within

CERTIFICATE_KEY = "client_certificate_sha256"
"""Where the HTTP protocol leaves the hash in the connection's ``state``."""

_ORIGIN_KEY = "origin"
_MOST_HOPS = 16
"""More proxies in a row than anybody has; what is further left is not looked at."""


@dataclass(frozen=True, slots=True)
class Origin:
    """``address`` is text without a port; ``certificate_sha256`` is empty without a client certificate."""

    address: str
    certificate_sha256: str = ""


def client_address(peer: str, forwarded: Iterable[bytes], trusted: tuple[str, ...]) -> str:
    """
    Return the address of the client: the right-most that is no trusted proxy's.

    ``forwarded`` are the values of all ``X-Forwarded-For`` headers, in order. They count only when the peer
    itself is trusted. When all are trusted, the left-most is the client. What is no address ends the list.
    """
    address = peer
    if not trusted or not is_within(peer, trusted):
        return address
    hops = b",".join(forwarded).decode("latin-1").split(",")[-_MOST_HOPS:]
    for hop in reversed(hops):
        found = _without_port(hop.strip())
        if not is_within(found, EVERYWHERE):  # no address: nobody that is trusted wrote that
            break
        address = found
        if not is_within(address, trusted):
            break
    return address


def _without_port(text: str) -> str:
    if text.startswith("["):  # [2001:db8::1]:443
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def note_origin(scope: Scope, trusted: tuple[str, ...]) -> Origin:
    """Work out where a request comes from and keep it with the request."""
    peer = scope.get("client")
    forwarded = (value for name, value in scope["headers"] if name == b"x-forwarded-for")
    state = scope.setdefault("state", {})
    address = client_address(peer[0] if peer else "", forwarded, trusted)
    origin = state[_ORIGIN_KEY] = Origin(address, state.get(CERTIFICATE_KEY, ""))
    return origin


def origin_of(scope: Scope) -> Origin:
    """Return where a request comes from, as noted before."""
    origin: Origin = scope["state"][_ORIGIN_KEY]
    return origin
