"""Unit tests are closed to the network: a connection to anything but this machine fails the test."""

from __future__ import annotations

import ipaddress
import sys

import pytest

_closed = False


def _refuse_the_network(event, arguments):
    if not _closed or event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and not is_here(str(address[0])):
        msg = f"a unit test connects to {address}; tests of real servers are in tests/integration"
        raise ConnectionRefusedError(msg)


def is_here(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# An audit hook sees every connect of the process, whoever makes it, with nothing patched.
sys.addaudithook(_refuse_the_network)


@pytest.fixture(autouse=True)
def _closed_to_the_network():
    global _closed  # noqa: PLW0603 - an audit hook cannot be removed, only told to look away
    _closed = True
    yield
    _closed = False
