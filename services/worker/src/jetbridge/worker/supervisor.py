"""
The first moments of a forked supervisor: tie it to the fork server and its task to it, then run Airflow.

Split from ``forkserver``: everything here happens in the child and never returns.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import NoReturn

from jetbridge.agent.prctl import adopt_orphans, die_with_parent, raise_oom_score
from jetbridge.worker import frames
from jetbridge.worker.kernel_fence import KernelFence

OOM_SCORE = 500
"""Added to ``oom_score_adj``: a task counts as if it took half of the machine's memory more than it does."""


def supervise(order: int, result: int, server_pid: int, server: str, fence: KernelFence) -> NoReturn:
    """
    Run the workload in the descriptor ``order`` and leave its Result on the pipe ``result``.

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
        _bind_task(result, fence)
        from jetbridge.worker import execute  # noqa: PLC0415 - imported by the fork server; here it is free

        outcome = execute.run(frames.read_order(order), server)
        os.write(result, frames.encode(outcome))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it must not leave this function
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _go_first_when_memory_runs_out() -> None:
    """
    Have the kernel take this process or its task, whichever is larger, before agent and fork server.

    Before the order is read: for the moment this takes, others of the same user may look into this process.
    """
    try:
        raise_oom_score(OOM_SCORE)
    except OSError as error:  # a /proc that cannot be written; the task can run all the same
        print(f"oom_score_adj stays as it is: {error}", file=sys.stderr)  # noqa: T201 - no logging here yet


def _bind_task(result: int, fence: KernelFence) -> None:
    """
    Make the next child of this process, the task, die with it and unable to write its Result.

    Airflow forks the task deep inside ``supervise_task``; a fork hook of the standard library runs in it
    there, before any code of the task. What the task itself forks is its own affair and left alone.
    """
    supervisor_pid = os.getpid()
    bound = False

    def in_child() -> None:
        nonlocal bound
        if not bound:
            bound = True
            os.close(result)
            fence.leave_to_supervisor()
            die_with_parent(supervisor_pid, signal.SIGKILL)

    os.register_at_fork(after_in_child=in_child)
