"""
uvicorn's HTTP protocol with limits it lacks: size and time of a request's head, and only plain targets.

httptools hands over whatever arrives; a client that sends headers without end, or one byte a minute,
would otherwise cost memory or a connection for as long as it likes. Errors are problem documents here too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.origin import CERTIFICATE_KEY
from jetbridge.gateway.problems import MEDIA_TYPE, encode_problem

_FAREWELL_SECONDS = 1.0
"""
How long a closing TLS connection waits for the other side's close_notify; uvloop alone waits 30 s.

An idle connection in a client's pool reads nothing, so its goodbye never comes.
"""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. :func:`bounded` makes a class with other limits."""

    max_head_bytes: ClassVar[int] = 32 << 10
    head_seconds: ClassVar[float] = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._farewell: asyncio.TimerHandle | None = None
        self._refusal = (ProblemType.MALFORMED, "This is not an HTTP/1.1 request.")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a client connects to ask something."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if certificate := tls.getpeercert(binary_form=True) if tls else None:
            # Every request's state begins as a copy of this.
            self.app_state = self.app_state | {CERTIFICATE_KEY: hashlib.sha256(certificate).hexdigest()}
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks."""
        self._stop_clock()
        if self._farewell is not None:
            self._farewell.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head, which may never be complete."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > self.max_head_bytes:
            self._refuse_large_head()

    def shutdown(self) -> None:
        """Close an idle connection; without waiting long for a client that does not listen to say goodbye."""
        super().shutdown()
        if self.transport.is_closing():
            self._farewell = self.loop.call_later(_FAREWELL_SECONDS, self.transport.abort)

    def on_message_begin(self) -> None:
        """Start the clock of the next request on this connection."""
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Check the head as a whole before anything acts on it. An error here refuses the request."""
        self._stop_clock()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.max_head_bytes:
            self._refusal = _LARGE_HEAD
            raise ValueError(_LARGE_HEAD[1])
        if not self.url.startswith(b"/"):
            self._refusal = _PLAIN_TARGET
            raise ValueError(_PLAIN_TARGET[1])
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be passed to the application, in the form of every other error."""
        del msg
        kind, detail = self._refusal
        self.on_refusal(kind)
        body = encode_problem(kind, detail)
        head = (
            f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    @staticmethod
    def on_refusal(kind: ProblemType) -> None:
        """Count a refused request; :func:`bounded` puts something useful here."""

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self.transport.abort()

    def _refuse_large_head(self) -> None:
        self._stop_clock()
        self._refusal = _LARGE_HEAD
        self.send_400_response("")


_LARGE_HEAD = (ProblemType.TOO_LARGE, "The request line and headers together are too large.")
_PLAIN_TARGET = (ProblemType.MALFORMED, "The request target must be a path (origin-form).")


def bounded(
    max_head_bytes: int, head_seconds: float, on_refusal: Callable[[ProblemType], None]
) -> type[BoundedHttpProtocol]:
    """Return the protocol with other limits; uvicorn makes its objects itself and takes a class."""
    limits = {
        "max_head_bytes": max_head_bytes,
        "head_seconds": head_seconds,
        "on_refusal": staticmethod(on_refusal),
    }
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), limits)
