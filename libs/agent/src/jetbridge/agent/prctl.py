"""
What Linux offers for keeping a tree of processes together and its secrets apart: ``prctl(2)``.

Nothing here exists on other systems; the calls raise :class:`OSError` there.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(value) for value in (argument, 0, 0, 0))) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl({option}, {argument}): {os.strerror(errno)}")


def die_with_parent(parent_pid: int, death_signal: signal.Signals) -> None:
    """
    Have the kernel send ``death_signal`` to this process when its parent ends, however it ends.

    The kernel means the *thread* that forked, so the parent must have forked from a thread that lives
    as long as the parent does: its main thread. A parent that died before this call would never be
    noticed, therefore ``parent_pid`` is looked at afterwards and the signal is sent from here.
    """
    _prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), death_signal)


def adopt_orphans() -> None:
    """Become the new parent of descendants whose parent ends, in init's place, so none can escape."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def raise_oom_score(points: int) -> None:
    """
    Make this process, and all it starts from now on, more likely to be killed when memory runs out.

    For a process whose memory is hidden, and which hides it again: only root may write the file of such a
    one. Raises :class:`OSError` where the file cannot be written.
    """
    _prctl(_PR_SET_DUMPABLE, 1)
    try:
        file = Path("/proc/self/oom_score_adj")
        file.write_text(str(min(1000, int(file.read_text()) + points)))
    finally:
        hide_memory()


def hide_memory() -> None:
    """
    Keep other processes of the same user from reading this one's memory, environment and descriptors.

    Tasks run as the agent's own user; without this, any of them could take the agent's token out of
    ``/proc/<pid>/mem`` or attach a debugger. It also means no core dumps.
    """
    _prctl(_PR_SET_DUMPABLE, 0)
