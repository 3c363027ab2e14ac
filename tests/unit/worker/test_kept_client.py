"""What a fork leaves to its supervisor. That tasks run with it: test_forkserver_runs_airflow."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from jetbridge.worker.kept_client import KeptClient


@pytest.fixture
def connection():
    ours, theirs = socket.socketpair()
    yield ours
    ours.close()
    theirs.close()


@pytest.fixture
def kept(connection):
    """A client that had an answer over a connection."""
    kept = KeptClient()
    stream = SimpleNamespace(get_extra_info={"socket": connection}.get)
    kept._note_socket(SimpleNamespace(extensions={"network_stream": stream}))
    return kept


def test_the_copy_of_a_connection_is_closed_and_no_other_descriptor(kept, connection):
    descriptor = connection.fileno()
    kept._leave_to_supervisor()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with socket.socket() as other:  # has the number that is free now
        kept._leave_to_supervisor()
        os.fstat(other.fileno())


def test_a_connection_that_a_draining_gateway_has_ended_is_none(kept, connection):
    connection.close()
    kept._leave_to_supervisor()
