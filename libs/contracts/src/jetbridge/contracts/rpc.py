"""
Request and reply with the bridge, over core NATS: ``rpc.<area>.<operation>``.

A request is an envelope; the answer is an envelope of the operation's own answer, or of :class:`Refused`.
An envelope larger than :data:`MAX_INLINE_BYTES` goes into the object bucket first and a
:class:`ByReference` travels in its place, in both directions. Requests are repeated when an answer is
lost, so handling one twice must change nothing more than handling it once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from msgspec import Meta

from jetbridge.contracts.envelope import Body

BRIDGE_QUEUE_GROUP = "bridge"
"""NATS gives each request to one member of the group, so several bridges share the work."""

AGENT_HEADER = "Jetbridge-Agent"
"""The agent on whose behalf a gateway asks; for logs and events."""

TIMEOUT_HEADER = "Jetbridge-Timeout-Seconds"
"""How long the requester waits. A bridge that is later than that drops the request: nobody listens."""

RPC_OBJECTS_BUCKET = "rpc-objects"
OBJECT_SECONDS = 600
"""Life of an object; far above any request's, so that whatever nobody deleted goes by itself."""

MAX_INLINE_BYTES = 512 * 1024
"""NATS refuses messages over 1 MiB by default; half of it leaves room for headers."""

MAX_RPC_BYTES = 48 << 20
"""Largest envelope at all: 32 MiB of compressed parsing results are 43 MiB as base64."""


class RefusalCode(StrEnum):
    """Why a request was refused. A reader takes a code it does not know for ``internal``."""

    MALFORMED = "malformed"
    UNKNOWN_MESSAGE = "unknown-message"
    TOO_LARGE = "too-large"
    UNSUPPORTED = "unsupported"
    UNUSABLE = "unusable"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class Refused(Body, frozen=True, kw_only=True):
    """The answer to a request that had no effect. ``detail`` says what is wrong with what."""

    TYPE: ClassVar[str] = "rpc.refused"

    code: str
    detail: str


class ByReference(Body, frozen=True, kw_only=True):
    """Stands for an envelope of ``size`` bytes under the name ``object`` in the object bucket."""

    TYPE: ClassVar[str] = "rpc.by-reference"

    object: str
    size: Annotated[int, Meta(ge=1)]


class RequestSetAside(Body, frozen=True, kw_only=True):
    """The bridge could not use a request; it was answered with the reason (stream EVENTS)."""

    TYPE: ClassVar[str] = "bridge.request-set-aside"

    subject: str
    agent: str
    code: str
    detail: str


ALL_BODIES: tuple[type[Body], ...] = (Refused, ByReference, RequestSetAside)


def rpc_subject(area: str, operation: str) -> str:
    """Return the subject of one operation, for example ``rpc.dag-processing.file-parsed``."""
    return f"rpc.{area}.{operation}"


def area_of(subject: str) -> str:
    """Return the area of an operation's subject."""
    return subject.split(".")[1]
