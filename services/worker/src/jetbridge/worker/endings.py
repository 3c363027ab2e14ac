"""How workloads end, and what is said of it: by themselves, or by the fork server's hand."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from jetbridge.contracts.messages import Outcome
from jetbridge.worker.frames import Exited, Result

HANDED_OVER = "the worker gave the task up before its end, so that it runs elsewhere"
FENCED = "the worker had no contact to the plane until its lease was over, so it killed the task"


@dataclass(eq=False)
class Workload:
    """
    What a supervisor runs now, and what the fork server did to it.

    ``good_seconds`` is as in :class:`jetbridge.worker.frames.Start`. ``told_to_stop``: by SIGTERM;
    ``fenced`` and ``handed_over``: killed.
    """

    lease: str
    pid: int
    good_seconds: float = 0.0
    told_to_stop: bool = False
    fenced: bool = False
    handed_over: bool = False

    def ended_as(self, result: Result) -> Exited:
        """Say how it ended in its supervisor's words."""
        return Exited(
            lease=self.lease, outcome=result.outcome, exit_code=result.exit_code, reason=result.reason
        )

    def ended(self, result: Result | None, status: int, *, lease_is_over: bool) -> Exited:
        """Say how it ended with its supervisor, which left ``result`` or nothing and had ``status``."""
        how = self.ended_as(result) if result else self._unsaid(status)
        if self.handed_over and how.outcome is not Outcome.SUCCEEDED:
            return self._abandoned(status, HANDED_OVER)
        # Who comes too late to kill it was frozen, and the kernel has done it.
        if self.fenced or (status == -signal.SIGKILL and lease_is_over):
            # What its result may say does not count: the plane could not hear the task's own report either.
            return self._abandoned(status, FENCED)
        return how

    def _abandoned(self, status: int, reason: str) -> Exited:
        return Exited(lease=self.lease, outcome=Outcome.ABANDONED, exit_code=status, reason=reason)

    def _unsaid(self, status: int) -> Exited:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return Exited(
            lease=self.lease,
            outcome=Outcome.FAILED,
            exit_code=status,
            reason=f"the task's supervisor process {how} before it could say how the task ended",
        )


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, those that are gone or another user's left aside."""
    for process in processes:
        # Not ours to kill: a task that runs as another user (run_as_user) belongs to sudo.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()


def kill_tree(pid: int) -> None:
    """Kill a child of this process and all below it. Not reaped yet, so the pid is still its own."""
    root = psutil.Process(pid)
    # A supervisor goes before its task: it must not get to report that its task failed.
    kill([root, *root.children(recursive=True)])
