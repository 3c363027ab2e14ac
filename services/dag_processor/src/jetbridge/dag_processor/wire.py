"""
What the agent and the manager's process say to each other, over a pair of connected sockets.

The manager asks and waits; there is one question at a time. Frames are MessagePack after their length. A body
is the JSON that goes to the gateway or came from it, which the agent passes on unread.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Annotated

import msgspec

HELD = "held"
"""Asks the agent, not the gateway: which bundles are ours now? The answer is :class:`Held` as JSON."""

READY = "ready"
"""Tells the agent which bundles could be loaded: :class:`Loaded` as JSON."""

READ = "read"
"""Reads of Airflow's Execution API: the body is a path and query, the answer a status and what came."""

MAX_FRAME_BYTES = 64 << 20
"""Above the largest parsing result as JSON."""

LENGTH = struct.Struct("!I")


class Failure(StrEnum):
    """Why there is no answer."""

    UNAVAILABLE = "unavailable"
    """The plane cannot be reached or cannot do it now; the same question may be answered later."""

    LOST = "lost"
    """The bundle is not ours any more."""

    REFUSED = "refused"
    """The plane will not do this, now or later."""


class Question(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """``operation`` is the end of the gateway's address; ``number`` tells late answers from the right one."""

    number: int
    operation: str
    body: bytes
    wait_seconds: Annotated[float, msgspec.Meta(gt=0)]


class Answer(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Either ``body``, or ``failure`` and a sentence about it."""

    number: int
    body: bytes = b""
    failure: Failure | None = None
    detail: str = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Bundles that are ours now, and their epochs; ``opened``: classes of data that policies opened."""

    epochs: dict[str, int]
    opened: tuple[str, ...] = ()


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What Airflow answered."""

    status: int
    content: bytes


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """Bundles that could be loaded."""

    bundles: tuple[str, ...]


_encoder = msgspec.msgpack.Encoder()
_questions = msgspec.msgpack.Decoder(Question)
_answers = msgspec.msgpack.Decoder(Answer)


def frame(value: Question | Answer) -> bytes:
    """Return a value as it goes over the wire."""
    data = _encoder.encode(value)
    return LENGTH.pack(len(data)) + data


def question(data: bytes) -> Question:
    """Read a question; raises ``msgspec.DecodeError``."""
    return _questions.decode(data)


def answer(data: bytes) -> Answer:
    """Read an answer; raises ``msgspec.DecodeError``."""
    return _answers.decode(data)
