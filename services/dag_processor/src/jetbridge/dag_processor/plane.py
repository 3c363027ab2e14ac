"""The manager's questions to the plane, asked of the agent that is its parent. Blocking, one at a time."""

from __future__ import annotations

import itertools
import socket
from typing import TypeVar

import msgspec

from jetbridge.dag_processor import wire
from jetbridge.dag_processor.wire import Answer, Failure, Held, Loaded, Question, Read

A = TypeVar("A", bound=msgspec.Struct)

ASK_SECONDS = 20.0
"""How long an ordinary question is asked: one try of the agent's, and a second one after a short outage."""

RESULT_SECONDS = 125.0
"""Above the gateway's 90 s for writing a large result, with the time to send it."""

_SURELY_ANSWERED_SECONDS = 15.0
"""How much longer than that the agent may take to say that there is no answer."""

_LOCAL_SECONDS = 30.0


class PlaneError(Exception):
    """A question without an answer; the text says why."""


class PlaneUnavailableError(PlaneError):
    """The plane cannot be reached or cannot do it now."""


class BundleLostError(PlaneError):
    """The bundle is not this agent's any more."""


class PlaneRefusedError(PlaneError):
    """The plane will not take this, now or later."""


class AgentGoneError(Exception):
    """The agent hung up, so this process has nobody to work for."""


_BY_FAILURE = {
    Failure.UNAVAILABLE: PlaneUnavailableError,
    Failure.LOST: BundleLostError,
    Failure.REFUSED: PlaneRefusedError,
}


class Plane:
    """Asks over a connected socket, which a parser must close before it runs a Dag's code."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._numbers = itertools.count(1)
        self.opened: tuple[str, ...] = ()

    def ask(
        self, operation: str, request: msgspec.Struct, answer: type[A], wait_seconds: float = ASK_SECONDS
    ) -> A:
        """Return the plane's answer; raises :class:`PlaneError` or :class:`AgentGoneError`."""
        body = self._exchange(operation, msgspec.json.encode(request), wait_seconds)
        try:
            return msgspec.json.decode(body, type=answer)
        except msgspec.DecodeError as error:
            raise PlaneUnavailableError(f"the answer to {operation} cannot be read: {error}") from error

    def ready(self, bundles: tuple[str, ...]) -> None:
        """Tell the agent which bundles could be loaded, so that it asks for them."""
        self._exchange(wire.READY, msgspec.json.encode(Loaded(bundles=bundles)), _LOCAL_SECONDS)

    def held(self) -> Held:
        """Return what is this agent's now, and what may cross; ``opened`` is set with it."""
        held = msgspec.json.decode(self._exchange(wire.HELD, b"", _LOCAL_SECONDS), type=Held)
        self.opened = held.opened
        return held

    def read(self, target: str) -> Read:
        """Read a path and query of Airflow's Execution API; raises as :meth:`ask`."""
        body = self._exchange(wire.READ, target.encode(), ASK_SECONDS)
        return msgspec.msgpack.decode(body, type=Read)

    def close(self) -> None:
        """Close this process' end."""
        self._sock.close()

    def _exchange(self, operation: str, body: bytes, wait_seconds: float) -> bytes:
        question = Question(
            number=next(self._numbers), operation=operation, body=body, wait_seconds=wait_seconds
        )
        self._sock.settimeout(wait_seconds + _SURELY_ANSWERED_SECONDS)
        try:
            self._sock.sendall(wire.frame(question))
            answer = self._receive(question.number)
        except OSError as error:  # a time-out too: the agent always answers, unless it is gone or frozen
            raise AgentGoneError(f"the agent does not answer: {error}") from error
        if answer.failure is not None:
            raise _BY_FAILURE[answer.failure](answer.detail)
        return answer.body

    def _receive(self, number: int) -> Answer:
        while True:
            (length,) = wire.LENGTH.unpack(self._exactly(wire.LENGTH.size))
            answer = wire.answer(self._exactly(length))
            if answer.number == number:
                return answer

    def _exactly(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            if not (part := self._sock.recv(min(left, 1 << 20))):
                raise ConnectionError("the agent hung up")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
