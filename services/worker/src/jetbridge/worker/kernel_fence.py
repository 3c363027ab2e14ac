"""
The fence that needs no process to run: a timer of the kernel kills a supervisor when its lease is over.

The fork server kills what outlives its lease, but not while it is frozen itself: with its container or its
machine. On waking a task could run on until the fork server has woken, too. So each supervisor has a timer
whose signal is SIGKILL, which reaches also a process that is stopped, and whose death the kernel answers with
the death of its task (``PR_SET_PDEATHSIG``). Nothing of this runs any Python at the end of a lease.

Only its own process can set such a timer. Until when leases are good stands in a page that the fork server
shares with its supervisors; after each change it sends them :data:`HELD_SIGNAL`, whose handler sets the timer
anew, also while the supervisor waits in a system call. Nothing of it is left in the task: neither page nor
timer nor handler.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from contextlib import suppress

from jetbridge.agent.lease_clock import LEASE_CLOCK
from jetbridge.worker.frames import Hold

HELD_SIGNAL = signal.SIGRTMIN + 7
"""A number that neither Airflow nor the C library uses. Where no supervisor handles it, it is ignored."""

# From <time.h> and <signal.h>.
_TIMER_ABSTIME = 1
_SIGEV_SIGNAL = 0


class _Moments(ctypes.Structure):
    """
    What is on the page. Each field is written and read by one instruction, so nobody ever sees half of it.

    Not by ``struct``: it fills the place with zeros first, and a supervisor that looked in between took its
    lease for over since 1970.
    """

    _fields_ = (("until", ctypes.c_double), ("heard_at", ctypes.c_double))


class HeldPage:
    """Until when leases are good, as the fork server knows it, in memory that its forks share."""

    def __init__(self) -> None:
        # Who has not set its timer yet will read the page; without this the signal would kill it.
        signal.signal(HELD_SIGNAL, signal.SIG_IGN)
        self._page = mmap.mmap(-1, ctypes.sizeof(_Moments))
        self._moments = _Moments.from_buffer(self._page)

    def write(self, hold: Hold, supervisors: list[int]) -> None:
        """Write it and have these processes, children of this one, set their timers."""
        self._moments.until, self._moments.heard_at = hold.until, hold.heard_at
        for pid in supervisors:
            with suppress(ProcessLookupError):
                os.kill(pid, HELD_SIGNAL)

    def read(self) -> Hold:
        """Return what was written last; while it is being written, perhaps one of them as it was before."""
        return Hold(until=self._moments.until, heard_at=self._moments.heard_at)

    def close(self) -> None:
        """Give it up in this process."""
        del self._moments  # it keeps the page from being closed
        self._page.close()


class KernelFence:
    """
    Has the kernel kill this process when a lease is over; for a supervisor, in its main thread.

    :param good_seconds: as in :class:`jetbridge.worker.frames.Start`
    """

    def __init__(self, page: HeldPage, good_seconds: float) -> None:
        self._page = page
        self._good_seconds = good_seconds
        self._until = 0.0
        self._timer: _KillTimer | None = None

    def arm(self) -> None:
        """Set the timer, and have it set again whenever leases turn out to be good for longer."""
        try:
            self._timer = _KillTimer()
        except OSError as error:  # a kernel without such timers; the fork server's own fence is still there
            print(f"no fence in the kernel: {error}", file=sys.stderr)  # noqa: T201 - no logging here yet
            return
        # First the handler, then the first look: no change in between goes unseen.
        signal.signal(HELD_SIGNAL, lambda *_: self._set())
        self._set()

    def leave_to_supervisor(self) -> None:
        """In the task: drop what is the supervisor's; timers the kernel does not copy."""
        signal.signal(HELD_SIGNAL, signal.SIG_DFL)
        self._page.close()

    def _set(self) -> None:
        # Leases only get longer; a change that is met half way must not be taken for the end of one.
        self._until = max(self._until, self._page.read().until_for(self._good_seconds))
        if self._timer is not None:
            self._timer.set(self._until)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class _SignalEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_byte * 48),
    )


class _KillTimer:
    """A POSIX timer of this process that sends it SIGKILL."""

    def __init__(self) -> None:
        library = _library_of_timers()
        self._settime, self._id = library.timer_settime, ctypes.c_void_p()
        event = _SignalEvent(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        if library.timer_create(LEASE_CLOCK, ctypes.byref(event), ctypes.byref(self._id)) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"timer_create: {os.strerror(errno)}")

    def set(self, moment: float) -> None:
        """Send it at this moment of the leases' clock; one that is over means now."""
        # All zero would turn the timer off.
        nanoseconds = max(1, int(moment * 1e9))
        spec = _TimerSpec(value=_TimeSpec(*divmod(nanoseconds, 1_000_000_000)))
        self._settime(self._id, _TIMER_ABSTIME, ctypes.byref(spec), None)


def _library_of_timers() -> ctypes.CDLL:
    """Return the C library, or before glibc 2.34 the one beside it that has the timers."""
    library = ctypes.CDLL(None, use_errno=True)
    return library if hasattr(library, "timer_create") else ctypes.CDLL("librt.so.1", use_errno=True)
