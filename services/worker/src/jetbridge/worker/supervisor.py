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

from jetbridge.agent.prctl import adopt_orphans, die_with_parent
from jetbridge.worker import frames


def supervise(order: int, result: int, server_pid: int, server: str) -> NoReturn:
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
        _bind_task(result)
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


def _bind_task(result: int) -> None:
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
            die_with_parent(supervisor_pid, signal.SIGKILL)

    os.register_at_fork(after_in_child=in_child)
