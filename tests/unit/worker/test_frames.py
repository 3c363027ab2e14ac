from __future__ import annotations

import os
import socket

import msgspec
import pytest

from jetbridge.contracts.messages import Outcome
from jetbridge.worker import frames
from jetbridge.worker.frames import Exited, HungUpError, Order, Result, Stop

LEASE = "0190c3f4-0000-7000-8000-000000000001.7"


@pytest.fixture
def ends():
    agent, server = frames.channel()
    with agent, server:
        yield agent, server


def test_frames_stay_whole_and_keep_their_descriptors(ends):
    agent, server = ends
    order = Order(lease=LEASE, spec=msgspec.Raw(b'{"ti":"x"}'), token="secret")
    descriptor = frames.write_order(order)
    start = frames.Start(lease=LEASE, hold=frames.Hold(until=1.0, heard_at=0.5), good_seconds=60.0)
    stop = Stop(lease=LEASE, grace_seconds=1.5)
    socket.send_fds(agent, [frames.encode(start)], [descriptor])
    agent.send(frames.encode(stop))
    os.close(descriptor)

    received, passed_on = frames.receive_command(server)
    assert received == start
    assert not os.get_inheritable(passed_on)
    assert frames.read_order(passed_on) == order
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed_on)
    assert frames.receive_command(server) == (stop, None)


def test_an_order_may_be_larger_than_any_pipe():
    order = Order(lease=LEASE, spec=msgspec.Raw(msgspec.json.encode("x" * 5_000_000)), token="secret")
    assert frames.read_order(frames.write_order(order)) == order


def test_the_longest_frame_fits(ends):
    agent, server = ends
    longest = Exited(lease=LEASE, outcome=Outcome.FAILED, exit_code=-9, reason="\u20ac\\" * 1024)
    server.send(frames.encode(longest))
    assert frames.receive_event(agent) == longest


def test_the_end_of_the_other_side(ends):
    agent, server = ends
    agent.close()
    with pytest.raises(HungUpError):
        frames.receive_command(server)
    with pytest.raises(HungUpError):
        frames.receive_event(server)


def test_an_order_shows_no_token():
    order = Order(lease=LEASE, spec=msgspec.Raw(b"{}"), token="secret")
    assert "secret" not in f"{order!r} {order}"


@pytest.mark.parametrize("left", [b"", b"{", b'{"outcome": "unheard of"}'])
def test_a_result_that_cannot_be_read_is_none(left):
    assert frames.decode_result(left) is None


def test_a_result():
    result = Result(outcome=Outcome.SUCCEEDED, exit_code=0)
    assert frames.decode_result(frames.encode(result)) == result
