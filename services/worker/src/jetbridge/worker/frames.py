"""
What the agent and its fork server say to each other, and a supervisor's order and result.

Agent and fork server are joined by a ``SOCK_SEQPACKET`` socket pair: the kernel keeps message
boundaries, so one packet is one frame, never half of one, and a file descriptor sent along stays with
its frame. Frames are small and hold no secret. What a supervisor needs (Airflow's workload and the
lease's token) travels in an anonymous file whose descriptor accompanies :class:`Start`: the fork server
passes it on unread, so that what it forks later cannot find the token of an earlier lease in its memory.
"""

from __future__ import annotations

import fcntl
import os
import socket

import msgspec

from jetbridge.contracts.messages import Outcome

MAX_FRAME_BYTES = 16_384
"""Far above any frame: a lease id has 57 characters and a reason at most 1024."""

LOG_UPLOAD_SECONDS = 10.0
"""A supervisor whose task was killed still uploads the log; after this the fork server kills it, too."""

MAX_REASON_LENGTH = 1024
"""As in the contract's ``ReportRequest``."""


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """
    To the fork server: fork a supervisor. One descriptor, of its :class:`Order`, comes along.

    ``hold`` is for a fork server that has not been told yet. ``good_seconds`` is set for a lease that is good
    for longer than others without contact: so long after ``hold.heard_at``. ``dag_id`` is as in the order.
    """

    lease: str
    hold: Hold
    good_seconds: float = 0.0
    dag_id: str = ""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """
    To the fork server: end a workload; ``grace_seconds`` lie between SIGTERM and SIGKILL.

    ``hand_over``: kill it at once, so that neither it nor its supervisor tells Airflow of an end, and say
    that it is over when nothing of it is left.
    """

    lease: str
    grace_seconds: float
    hand_over: bool = False


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """
    To the fork server: leases are good until ``until`` (``jetbridge.agent.lease_clock``).

    When that passes without another such frame the fork server kills what runs under them by itself, even
    when the agent is stopped or stuck. ``heard_at`` is when the heartbeat was sent that says so.
    """

    until: float
    heard_at: float

    def until_for(self, good_seconds: float) -> float:
        """Return until when a lease is good that lasts ``good_seconds`` without contact; 0 is as others."""
        return max(self.until, self.heard_at + good_seconds) if good_seconds else self.until


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """From the fork server: everything is imported and forks may be asked for."""

    import_seconds: float
    modules: int
    threads: int


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """From the fork server: the supervisor of a lease runs as ``pid``."""

    lease: str
    pid: int


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag="exited"):
    """From the fork server: the supervisor of a lease is gone, and how the workload ended."""

    lease: str
    outcome: Outcome
    exit_code: int | None = None
    reason: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one supervisor is to run. Read by that supervisor alone.

    ``spec`` is Airflow's workload as JSON without a token; ``token`` is the lease's. ``outbox`` is where to
    keep what the plane cannot take while it is away; empty for a task that does not ride through that.

    ``memory_limit_bytes`` is what the task and all it starts may take together; 0 is no limit.
    ``traceparent`` continues the attempt's trace, if it is part of one.
    ``opened`` are the classes of data that policies let the workload send as they are.
    ``dag_id``: a supervisor that ran a task of this Dag may run another of it; empty for what is run alone.
    ``accepted_at`` is when the lease was confirmed (CLOCK_MONOTONIC, the same for all processes).
    """

    lease: str
    spec: msgspec.Raw
    token: str
    outbox: str = ""
    memory_limit_bytes: int = 0
    traceparent: str = ""
    opened: tuple[str, ...] = ()
    dag_id: str = ""
    accepted_at: float = 0.0

    def __repr__(self) -> str:
        return f"Order(lease={self.lease!r}, token=***)"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a workload ended, said by its supervisor.

    ``again``: it waits for another order. Otherwise it ends now, and counts as running until it is gone.
    """

    outcome: Outcome
    exit_code: int | None = None
    reason: str = ""
    again: bool = False


Command = Start | Stop | Hold
Event = Ready | Started | Exited

_encoder = msgspec.json.Encoder()
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_orders = msgspec.json.Decoder(Order)
_results = msgspec.json.Decoder(Result)


class HungUpError(ConnectionError):
    """The other end of the socket pair is gone."""


def channel() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair of sockets that keep frames whole."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def encode(frame: Command | Event | Result) -> bytes:
    """Return a frame or a result as it goes over the wire."""
    return _encoder.encode(frame)


def decode_result(data: bytes) -> Result | None:
    """Return what a supervisor left behind; None when it left nothing that can be read."""
    try:
        return _results.decode(data)
    except msgspec.DecodeError:
        return None


def receive_event(sock: socket.socket) -> Event:
    """Read one event; raises :class:`HungUpError` at the end, :class:`BlockingIOError` when none is there."""
    data = sock.recv(MAX_FRAME_BYTES)
    if not data:
        raise HungUpError("the fork server closed its socket")
    return _events.decode(data)


def receive_command(sock: socket.socket) -> tuple[Command, int | None]:
    """Read one command and the descriptor that came along; raises :class:`HungUpError` at the end."""
    data, descriptors, _flags, _address = socket.recv_fds(sock, MAX_FRAME_BYTES, 1)
    if not data:
        raise HungUpError("the agent closed its socket")
    for descriptor in descriptors:
        # Else it would survive into programs that tasks execute. (Python's recv_fds ignores its flags.)
        fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    return _commands.decode(data), descriptors[0] if descriptors else None


def receive_order(sock: socket.socket) -> Order | None:
    """Wait for an order and read it; None when the fork server has no more for this supervisor."""
    data, descriptors, _flags, _address = socket.recv_fds(sock, 1, 1)
    return read_order(descriptors[0]) if data else None


def hand_order(sock: socket.socket, descriptor: int) -> None:
    """Pass an order on to a supervisor, unread; raises :class:`OSError` when it is gone."""
    socket.send_fds(sock, [b"!"], [descriptor])


def write_order(order: Order) -> int:
    """Put an order into an anonymous file in memory and return its descriptor, rewound."""
    descriptor = os.memfd_create("jetbridge-order")
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(_encoder.encode(order))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def read_order(descriptor: int) -> Order:
    """Read an order and close its descriptor, which frees the file."""
    with os.fdopen(descriptor, "rb") as file:
        return _orders.decode(file.read())
