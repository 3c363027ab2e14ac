"""The rule of ``tests/unit/conftest.py`` holds."""

from __future__ import annotations

import socket

import pytest


def test_a_connection_elsewhere_is_refused_before_a_packet_is_sent():
    # 192.0.2.0/24 is for documentation (RFC 5737); nobody answers there.
    with pytest.raises(ConnectionRefusedError, match="tests/integration"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_this_machine_may_be_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
