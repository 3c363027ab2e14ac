"""Names and identifiers as text: agents, leases, agent tokens."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, NamedTuple

import msgspec

AGENT_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""A DNS label (RFC 1123), so that a pod's name and a KV key are valid agent names as they are."""

WORKLOAD_ID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
"""Airflow's task instance and callback ids are UUIDs in lower case."""

LEASE_ID_PATTERN = WORKLOAD_ID_PATTERN[:-1] + r"\.[1-9][0-9]{0,18}$"
"""``<workload id>.<epoch>``; the epoch is a KV revision, so a positive 64-bit integer."""

TOKEN_PREFIX = "jb"  # noqa: S105 - a prefix, not a secret
_TOKEN_PATTERN = re.compile(r"^jb_([0-9a-z]{12})_([0-9A-Za-z_-]{43})$")

AgentName = Annotated[str, msgspec.Meta(pattern=AGENT_NAME_PATTERN)]
WorkloadId = Annotated[str, msgspec.Meta(pattern=WORKLOAD_ID_PATTERN)]
LeaseId = Annotated[str, msgspec.Meta(pattern=LEASE_ID_PATTERN)]
Epoch = Annotated[int, msgspec.Meta(ge=1)]


class InvalidIdError(ValueError):
    """A name, lease id or agent token that does not have the documented form."""


class LeaseKey(NamedTuple):
    """
    One attempt to run one workload: the key of every operation on it.

    ``epoch`` is the revision of the KV write that made the offer. Revisions only grow, so a later
    offer of the same workload always has a higher epoch and fences the earlier one.
    """

    workload_id: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.workload_id}.{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> LeaseKey:
        """Read ``<workload id>.<epoch>``; raises :class:`InvalidIdError` on anything else."""
        if not re.fullmatch(LEASE_ID_PATTERN, text) or text.endswith(
            "\n"
        ):  # $ also matches before a last one
            msg = "a lease id is '<workload uuid>.<epoch>'"
            raise InvalidIdError(msg)
        workload_id, _, epoch = text.rpartition(".")
        return cls(workload_id, int(epoch))


class AgentToken(NamedTuple):
    """
    An agent token in its two parts, ``jb_<id>_<secret>`` (design section 7).

    The id is public and names the token in lists and logs; the secret is 256 random bits.
    """

    id: str
    secret: str

    def __str__(self) -> str:
        return f"{TOKEN_PREFIX}_{self.id}_{self.secret}"

    def __repr__(self) -> str:
        return f"AgentToken(id={self.id!r}, secret=***)"

    @classmethod
    def generate(cls) -> AgentToken:
        """Make a new token from the operating system's random source."""
        return cls(secrets.token_hex(6), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> AgentToken:
        """Read a token; raises :class:`InvalidIdError`, whose text never holds the token."""
        match = _TOKEN_PATTERN.match(text)
        if match is None:
            msg = "an agent token has the form 'jb_<id>_<secret>'"
            raise InvalidIdError(msg)
        return cls(match[1], match[2])
