"""
What of a request to ``/execution/*`` goes on to Airflow, and what comes back. Pure.

The path goes on byte for byte, so that this gateway and Airflow can never read it differently. What two
servers are known to read differently is refused: dot segments, empty segments, backslashes, control
characters, escapes of escapes, and escaped slashes except where Airflow's own client sends them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_plus, unquote_to_bytes

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

PREFIX = b"/execution/"

_PLAIN = re.compile(rb"^(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$")
"""The characters of a path in RFC 3986, section 3.3."""

_QUERY = re.compile(rb"^(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2}|[\[\]|])*$")

_ESCAPED_AGAIN = re.compile(rb"%(?:2[ef]|5c|00)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f\\]")

_KEYS_WITH_SLASHES = re.compile(rb"^store/ti/[0-9a-f-]{36}/[^/]+$")
"""Airflow's client escapes a task state store's key whole (``quote(key, safe="")``), slashes included."""

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, section 7.6.1, and what older software adds."""

_NOT_FORWARDED = _HOP_BY_HOP | {
    b"authorization",  # the agent's; replaced by Airflow's own
    b"cookie",
    b"expect",  # answered here
    b"forwarded",
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-real-ip",
}

_NOT_RETURNED = _HOP_BY_HOP | {
    b"date",  # the gateway writes its own
    b"server",
    b"set-cookie",
    b"refreshed-api-token",  # Airflow's tokens never reach an agent
}

_TOKEN = re.compile(
    r"jb_[0-9a-z]{12}_[0-9A-Za-z_-]{43}|eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}"
)
"""An agent token or a JWT, wherever it stands: addresses end up in logs."""

RawHeaders = Iterable[tuple[bytes, bytes]]


class PathError(ValueError):
    """A path or query that is not passed on; the text says why."""


def upstream_target(raw_path: bytes, query: bytes) -> str:
    """Return path and query below Airflow's base address, as they came; raises :class:`PathError`."""
    if not raw_path.startswith(PREFIX):
        raise PathError("the path must begin with /execution/, written without escapes")
    rest = raw_path[len(PREFIX) :]
    if not _PLAIN.match(rest):
        raise PathError("the path holds characters that must be percent-encoded (RFC 3986)")
    if not _QUERY.match(query):
        raise PathError("the query holds characters that must be percent-encoded (RFC 3986)")
    _check_segments(rest)
    if _TOKEN.search(unquote(rest.decode("ascii"))) or _TOKEN.search(unquote_plus(query.decode("ascii"))):
        raise PathError("the address holds a token, which should be revoked; tokens belong into a header")
    target = raw_path + (b"?" + query if query else b"")
    return target.decode("ascii")


def _check_segments(rest: bytes) -> None:
    slashes_allowed = bool(_KEYS_WITH_SLASHES.match(rest))
    segments = rest.split(b"/")
    for number, segment in enumerate(segments, start=1):
        plain = unquote_to_bytes(segment)
        parts = plain.split(b"/")
        if len(parts) > 1 and not (slashes_allowed and number == len(segments)):
            raise PathError("the path holds an escaped slash")
        if any(part in (b"", b".", b"..") for part in parts):
            raise PathError("the path holds an empty segment, '.' or '..'")
        if _CONTROL.search(plain) or _ESCAPED_AGAIN.search(plain):
            raise PathError("the path holds a backslash, a control character or an escape of an escape")


def forwarded_headers(headers: RawHeaders, token: str) -> list[tuple[str, str]]:
    """Return the headers for Airflow, with its own token in place of the agent's."""
    kept = _end_to_end(headers, _NOT_FORWARDED)
    return [*kept, ("Authorization", f"Bearer {token}")]


def returned_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Return the headers for the agent."""
    kept = _end_to_end(headers, _NOT_RETURNED)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept]


def _end_to_end(headers: RawHeaders, removed: frozenset[bytes]) -> list[tuple[str, str]]:
    found = [(name.lower(), value) for name, value in headers]
    named = {
        token.strip().lower() for name, value in found if name == b"connection" for token in value.split(b",")
    }
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in found
        if name not in removed and name not in named
    ]
