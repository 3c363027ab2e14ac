"""
The frame around every message on the bus.

Decoding takes two steps: the envelope first, its body by type and version. A consumer that is older
than the producer therefore meets an unknown *name* it can set aside with a reason, instead of bytes
that fail to decode (msgspec refuses unknown union tags and enum values outright).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import msgspec


class MessageError(ValueError):
    """Bytes from the bus that are not a message this process can use; the text says which and why."""


class UnknownMessageError(MessageError):
    """A well-formed envelope whose type or version this process does not know (a newer sender)."""


class MalformedMessageError(MessageError):
    """Bytes that are no envelope, or a body that does not have the shape its name promises."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """Base of message bodies. ``TYPE`` and ``VERSION`` together are the message's name."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1

    @classmethod
    def name(cls) -> str:
        """Return the versioned name, for example ``workload.submitted.v1``."""
        return f"{cls.TYPE}.v{cls.VERSION}"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What every message says about itself before its body is looked at.

    ``id`` is the deduplication key: the same event published twice has the same id.
    ``time`` is when the event happened, UTC. ``traceparent`` is W3C Trace Context.
    """

    type: str
    version: int
    id: str
    time: datetime
    traceparent: str | None = None
    body: msgspec.Raw

    @property
    def name(self) -> str:
        """Return the versioned name, for example ``workload.submitted.v1``."""
        return f"{self.type}.v{self.version}"


B = TypeVar("B", bound=Body)
_encoder = msgspec.json.Encoder()
_envelope_decoder = msgspec.json.Decoder(Envelope)

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes it cannot read: not JSON or not the shape, not UTF-8, nested too deeply."""


def seal(body: Body, *, message_id: str | None = None, traceparent: str | None = None) -> bytes:
    """Put a body into an envelope and encode both as JSON."""
    envelope = Envelope(
        type=body.TYPE,
        version=body.VERSION,
        id=message_id or str(uuid.uuid4()),
        time=datetime.now(UTC),
        traceparent=traceparent,
        body=msgspec.Raw(_encoder.encode(body)),
    )
    return _encoder.encode(envelope)


def seal_again(envelope: Envelope, body: Body, message_id: str) -> bytes:
    """Put another body into a message; when it happened and its trace stay those of the first one."""
    copy = msgspec.structs.replace(envelope, id=message_id, body=msgspec.Raw(_encoder.encode(body)))
    return _encoder.encode(copy)


def open_envelope(data: bytes) -> Envelope:
    """Decode the frame only; raises :class:`MalformedMessageError`."""
    try:
        return _envelope_decoder.decode(data)
    except _UNREADABLE as exc:
        msg = f"not a message envelope: {exc}"
        raise MalformedMessageError(msg) from exc


def read_body(envelope: Envelope, *known: type[B]) -> B:
    """
    Decode the body as the one of ``known`` whose name the envelope carries.

    Raises :class:`UnknownMessageError` when none has that name, :class:`MalformedMessageError` when
    the body does not fit.
    """
    for body_type in known:
        if body_type.name() == envelope.name:
            return _decode_body(envelope, body_type)
    names = ", ".join(sorted(body_type.name() for body_type in known))
    msg = f"unknown message {envelope.name!r}; this process reads {names}"
    raise UnknownMessageError(msg)


def _decode_body(envelope: Envelope, body_type: type[B]) -> B:
    try:
        return msgspec.json.decode(envelope.body, type=body_type)
    except _UNREADABLE as exc:
        msg = f"{envelope.name} {envelope.id}: {exc}"
        raise MalformedMessageError(msg) from exc


def to_builtins(value: Any) -> Any:
    """Return ``value`` as plain JSON types, for logs and tests."""
    return msgspec.to_builtins(value)
