"""
A forked supervisor: tie it to the fork server and its task to it, then run Airflow.

Split from ``forkserver``: everything here happens in the child and never returns.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

import msgspec
from setproctitle import setproctitle

from jetbridge.agent.prctl import adopt_orphans, die_with_parent, raise_oom_score
from jetbridge.worker import frames
from jetbridge.worker.kernel_fence import KernelFence

OOM_SCORE = 500
"""Added to ``oom_score_adj``: a task counts as if it took half of the machine's memory more than it does."""


def supervise(channel: socket.socket, server_pid: int, server: str, fence: KernelFence) -> NoReturn:
    """
    Run the workloads whose orders come on ``channel``, one after another, and say there how each ended.

    This is a copy of the fork server, so nothing may unwind into its frames: the process ends here.
    """
    status = 1
    try:
        # A session of its own: a Ctrl-C in the agent's terminal is the agent's to answer.
        os.setsid()
        adopt_orphans()
        die_with_parent(server_pid, signal.SIGKILL)
        fence.arm()
        _go_first_when_memory_runs_out()
        _serve(channel, server, TaskTie(channel, fence))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it must not leave this function
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve(channel: socket.socket, server: str, tie: TaskTie) -> None:
    from jetbridge.worker import execute  # noqa: PLC0415 - imported by the fork server; here it is free

    while order := frames.receive_order(channel):
        tie.the_next_child()
        result = execute.run(order, server)
        if result.again and not _is_as_before():
            result = msgspec.structs.replace(result, again=False)
        channel.send(frames.encode(result))
        if not result.again:
            return
        setproctitle("jetbridge worker: supervisor between tasks")


def _is_as_before() -> bool:
    """Tell whether nothing is left of a workload: neither a descendant of its task's nor a thread."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return threading.active_count() == 1
    return False


def _go_first_when_memory_runs_out() -> None:
    """
    Have the kernel take this process or its task, whichever is larger, before agent and fork server.

    Before the order is read: for the moment this takes, others of the same user may look into this process.
    """
    try:
        raise_oom_score(OOM_SCORE)
    except OSError as error:  # a /proc that cannot be written; the task can run all the same
        print(f"oom_score_adj stays as it is: {error}", file=sys.stderr)  # noqa: T201 - no logging here yet


class TaskTie:
    """
    Makes the next child of this process, the task, die with it and unable to speak in its name.

    Airflow forks the task deep inside ``supervise_task``; a fork hook of the standard library runs in it
    there, before any code of the task. What the task itself forks is its own affair and left alone.
    """

    def __init__(self, channel: socket.socket, fence: KernelFence) -> None:
        self._channel = channel
        self._fence = fence
        self._supervisor_pid = os.getpid()
        self._is_due = False
        os.register_at_fork(after_in_child=self._in_child)

    def the_next_child(self) -> None:
        """Tie the child that is forked next."""
        self._is_due = True

    def _in_child(self) -> None:
        if self._is_due:
            self._is_due = False
            self._channel.close()
            self._fence.leave_to_supervisor()
            die_with_parent(self._supervisor_pid, signal.SIGKILL)
