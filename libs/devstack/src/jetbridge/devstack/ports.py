"""TCP ports for servers that must keep theirs over a restart, and sockets for those that run in tests."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""
Below Linux's ephemeral range (32768-60999). In that range an outgoing connection can take a stopped
server's port as its source, and a client that retries a dead port can even connect to itself.
"""

_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free on ``host`` now and was not given out by this process before."""
    for _ in range(200):
        port = random.randint(_FIRST, _LAST)  # noqa: S311 - spreads concurrent runs, guards nothing
        if port not in _given and _is_free(host, port):
            _given.add(port)
            return port
    msg = f"no free TCP port on {host} between {_FIRST} and {_LAST} in 200 tries"
    raise OSError(msg)


def listening(port: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """
    Return a socket for a server of a test's own process; ``port`` 0 is any.

    asyncio's own loop does not see that it is TCP, so that without the option each answer would take 40 ms.
    """
    listener = socket.create_server((host, port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError:
            return False
    return True
