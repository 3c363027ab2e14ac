"""
A selector that notices the end of a child at once, for Airflow's supervisors.

They wait in ``select`` on the sockets of the process they supervise, for seconds. When it ends, its sockets
close a moment before the kernel lets the process be reaped. A supervisor that is scheduled in between, which
on a busy machine is the rule, has no socket left to wake it and sleeps those seconds.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket


class ChildAwareSelector(selectors.DefaultSelector):
    """
    A selector whose ``select`` also returns, with what is ready or nothing, when a child ends.

    For the main thread of a process that does not use ``signal.set_wakeup_fd`` otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.settimeout(0)
        # The wakeup descriptor is written for signals that have a Python handler, so SIGCHLD gets one.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self.register(self._reader, selectors.EVENT_READ)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; see :class:`selectors.BaseSelector`."""
        ready = super().select(timeout)
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)
        return [event for event in ready if event[0].fileobj is not self._reader]

    def close(self) -> None:
        """Stop listening for signals as well."""
        if (ours := self._writer.fileno()) >= 0 and (now := signal.set_wakeup_fd(-1)) != ours:
            signal.set_wakeup_fd(now)  # that of another selector, made since
        for end in (self._reader, self._writer):
            end.close()
        super().close()
