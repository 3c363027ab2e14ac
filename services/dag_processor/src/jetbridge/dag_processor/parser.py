"""
The process that parses one Dag file, or runs its callbacks, with limits. For Airflow 3.3.

A Dag file is code of somebody who may have made a mistake. Airflow's manager already ends a parser that
takes too long. Here it also cannot take all memory, cannot fill the manager's memory or the disk with what
it prints, leaves no process behind, does not outlive the manager, and has no way to the agent.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any, BinaryIO

import attrs
from airflow.dag_processing.processor import DagFileProcessorProcess, _parse_file_entrypoint

from jetbridge.agent.prctl import die_with_parent

_READ_BYTES = 4096
"""What Airflow's readers take from a socket at once (``make_buffered_socket_reader``)."""

_RESULT_BYTES = 512 << 20
"""What a parser may send its manager as messages: a parsing result, and questions about variables."""

_RSS_FIRST_TO_DIE = 1000

Reader = Callable[[socket], bool]


@dataclass(frozen=True)
class ParserLimits:
    """Bytes a parser may take as memory, and bytes it may print or log."""

    memory_bytes: int
    output_bytes: int


def entrypoint(limits: ParserLimits, cut_off: Callable[[], None]) -> Callable[[], None]:
    """Return what a parser's process runs. Call it in the manager, right before the fork."""
    manager_pid = os.getpid()

    def parse() -> None:
        die_with_parent(manager_pid, signal.SIGKILL)
        cut_off()
        # Private memory; not RLIMIT_AS, which also counts what is only mapped, such as shared libraries.
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # where /proc is hidden
            Path("/proc/self/oom_score_adj").write_text(str(_RSS_FIRST_TO_DIE))
        _parse_file_entrypoint()  # type: ignore[no-untyped-call]

    return parse


@attrs.define(kw_only=True)
class LimitedParser(DagFileProcessorProcess):
    """Airflow's parser process, of which no more is read than its limits allow."""

    limits: ParserLimits

    @property
    def is_ready(self) -> bool:
        """Say whether the parser ended and all it said was read, as Airflow does."""
        if self._check_subprocess_exit() is not None:
            # What it left running would keep its sockets open, and the result waiting, until the time-out.
            self._end_group()
        return super().is_ready

    def close(self) -> None:
        """Close the parser's sockets and log, after nothing is left that could write to them."""
        self._end_group()
        super().close()  # type: ignore[no-untyped-call]

    def _end_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _register_pipe_readers(
        self, stdout: socket, stderr: socket, requests: socket, logs: socket, **kwargs: Any
    ) -> None:
        super()._register_pipe_readers(stdout, stderr, requests, logs, **kwargs)
        for sock in (stdout, stderr, logs):
            self._replace_reader(sock, lambda read: _Muted(read, self.limits.output_bytes, self._say_muted))
        self._replace_reader(requests, lambda read: _Muted(read, _RESULT_BYTES, self._end_flood))

    def _replace_reader(self, sock: socket, wrap: Callable[[Reader], Reader]) -> None:
        key = self.selector.get_key(sock)
        read, on_close = key.data
        self.selector.modify(sock, selectors.EVENT_READ, (wrap(read), on_close))

    def _say_muted(self) -> None:
        self.process_log.warning("output dropped from here on", limit_bytes=self.limits.output_bytes)

    def _end_flood(self) -> None:
        self.process_log.error("killed: the parsing result is too large", limit_bytes=_RESULT_BYTES)
        self.kill(signal.SIGKILL)


class _Muted:
    """
    Reads a socket as before until the limit, then only empties it.

    Airflow's reader keeps a line until its end and searches all of it after each piece, so a line of 100 MB
    without an end would take the manager minutes and the memory.
    """

    def __init__(self, read: Reader, limit: int, on_limit: Callable[[], None]) -> None:
        self._read = read
        self._left = limit
        self._on_limit = on_limit

    def __call__(self, sock: socket) -> bool:
        if self._left > 0:
            self._left -= _READ_BYTES
            if self._left <= 0:
                self._on_limit()
            return self._read(sock)
        return bool(sock.recv(1 << 20))


def open_log(path: Path, limit_bytes: int) -> BinaryIO:
    """
    Open a parser's log to append to, with the earlier part aside if there is much of it.

    So a file that prints a lot, parsed every 30 seconds, takes no more than twice the limit of the disk,
    and one parse's output.
    """
    with suppress(FileNotFoundError):
        if path.stat().st_size > limit_bytes:
            path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
