"""
The audit of the boundary: what crossed, was masked, sealed or refused, counted and never quoted.

Each gateway process writes a chain of its own: records are numbered from 1, and each has the SHA-256 of the
one before, so that a record cannot be changed, removed or moved without a trace.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from jetbridge.contracts.envelope import Body

FIRST_PREVIOUS = "0" * 64
"""What the first record of a chain has in place of a hash."""

AUDIT_SECONDS = 1.0
"""
How often a gateway writes what it counted of classes that policies decide about, and of what it refused. One
that is killed takes at most this much along.
"""

ROUTINE_AUDIT_SECONDS = 60.0
"""The same for what always crosses: every heartbeat counts, and records of it alone would fill the stream."""

Count = Annotated[int, Meta(ge=0)]


class BoundaryCount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How often something happened, and how many bytes of JSON it was about.

    ``data`` is a class of data, ``outcome`` what became of it; ``operation`` is method and address.
    """

    data: str
    outcome: str
    agent: str
    site: str = ""
    operation: str
    count: Count
    bytes: Count = 0


class BoundaryAudited(Body, frozen=True, kw_only=True):
    """
    What one gateway process counted since its record before (stream AUDIT).

    ``previous`` is the hash of that record's body as it was written. ``closed`` is in the last record of a
    gateway that ended in order; the chain of one that was killed has no such record.
    """

    TYPE: ClassVar[str] = "boundary.audited"

    gateway: str
    sequence: Annotated[int, Meta(ge=1)]
    previous: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    until: datetime
    counts: tuple[BoundaryCount, ...] = ()
    closed: bool = False


def body_hash(body: bytes) -> str:
    """Return the hash by which the next record refers to this one."""
    return hashlib.sha256(body).hexdigest()


ALL_BODIES: tuple[type[Body], ...] = (BoundaryAudited,)
