"""
The warm process that forks. Run as ``python -m jetbridge.worker.forkserver``, by the agent only.

It imports Airflow once, freezes what it has, and then forks one supervisor per workload: the start of a
task costs a fork instead of two seconds of imports, and the imported pages are shared. It is started by
exec, never forked from the agent's event loop, and has one thread, because a fork of several copies
their locks without the threads that would release them.

Nothing outlives what it belongs to:

* The agent ends → end of file on the socket (and SIGTERM from the kernel) → everything is killed here.
* This process ends → the kernel kills every supervisor, and each supervisor's death kills its task.
  The agent adopts and kills what is left (see ``forkserver_client``).
* The leases end → this process kills what runs under them; and if it is frozen, the kernel does
  (see ``kernel_fence``).
* A supervisor ends → its remaining descendants become children of this process, which kills them.
  While it runs they stay its own, since every supervisor adopts the orphans below it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sched
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from jetbridge.agent.lease_clock import lease_time
from jetbridge.agent.prctl import adopt_orphans, die_with_parent, hide_memory
from jetbridge.contracts.messages import Outcome
from jetbridge.worker import frames
from jetbridge.worker.frames import Exited, Hold, HungUpError, Ready, Start, Started, Stop
from jetbridge.worker.kernel_fence import HeldPage, KernelFence
from jetbridge.worker.supervisor import supervise

SWEEP_DELAY_SECONDS = 0.25
"""Looking for leftovers reads all of /proc, so a burst of ending workloads shares one look."""


HANDED_OVER = "the worker gave the task up before its end, so that it runs elsewhere"
FENCED = "the worker had no contact to the plane until its lease was over, so it killed the task"


@dataclass(frozen=True)
class Workload:
    """
    One supervisor this process forked. ``result`` is the pipe on which it leaves its Result.

    ``good_seconds`` is as in :class:`frames.Start`.
    """

    lease: str
    pid: int
    result: int
    good_seconds: float = 0.0


class TerminatedError(Exception):
    """SIGTERM arrived."""


class ForkServer:
    """
    The loop of the fork server: commands in; forks, signals and ends of supervisors out.

    :param control: socket pair to the agent
    :param server: address of the Execution API
    """

    def __init__(self, control: socket.socket, server: str) -> None:
        self._control = control
        self._server = server
        self._workloads: dict[int, Workload] = {}
        self._later = sched.scheduler(lease_time)
        self._held = Hold(until=0.0, heard_at=0.0)
        self._held_page = HeldPage()
        self._fence: sched.Event | None = None
        self._fenced: set[int] = set()
        self._handed_over: set[int] = set()
        self._not_told_yet: list[Exited] = []
        self._sweep_is_due = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until the agent is gone or SIGTERM arrives, then kill everything and return."""
        self._listen()
        try:
            while True:
                for key, _events in self._selector.select(self._later.run(blocking=False)):
                    key.data()
        except (HungUpError, BrokenPipeError, TerminatedError):
            pass
        finally:
            self._kill_everything()

    def tell(self, event: frames.Event) -> None:
        """Send an event to the agent. Blocks while the agent does not read."""
        self._control.send(frames.encode(event))

    def _listen(self) -> None:
        for end in (self._wake_reader, self._wake_writer):
            end.settimeout(0)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # the wakeup descriptor tells the loop which one came
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._on_signals)
        self._selector.register(self._control, selectors.EVENT_READ, self._on_command)

    def _on_signals(self) -> None:
        if signal.SIGTERM in self._wake_reader.recv(4096):
            raise TerminatedError
        self._reap()

    def _on_command(self) -> None:
        command, order = frames.receive_command(self._control)
        if isinstance(command, Hold):
            self._hold(command)
        elif isinstance(command, Stop):
            self._stop(command)
        elif order is None:
            self._refuse(command, "the agent sent no order along")
        else:
            self._hold(command.hold)  # first, so that what is forked now finds it
            self._start(command, order)
            self._set_fence()

    # -- the fence

    def _hold(self, hold: Hold) -> None:
        self._held = Hold(
            until=max(self._held.until, hold.until), heard_at=max(self._held.heard_at, hold.heard_at)
        )
        self._held_page.write(self._held, list(self._workloads))
        self._set_fence()

    def _set_fence(self) -> None:
        """Have the fence looked at no later than the first lease is over; earlier does no harm."""
        running = [workload for workload in self._workloads.values() if workload.pid not in self._fenced]
        if not running:
            return
        first = min(self._held.until_for(workload.good_seconds) for workload in running)
        if self._fence is not None and first < self._fence.time:
            self._later.cancel(self._fence)
            self._fence = None
        if self._fence is None:
            self._fence = self._later.enterabs(first, 0, self._keep_fence)

    def _keep_fence(self) -> None:
        """Kill what runs under leases that are over; no SIGTERM, which a task may take its time to answer."""
        self._fence = None
        for workload in self._workloads.values():
            if workload.pid not in self._fenced and self._is_over(workload):
                self._fenced.add(workload.pid)
                _kill_tree(workload.pid)
        self._set_fence()

    def _is_over(self, workload: Workload) -> bool:
        return self._held.until_for(workload.good_seconds) <= lease_time()

    def _refuse(self, command: Start, reason: str) -> None:
        self.tell(Exited(lease=command.lease, outcome=Outcome.FAILED, reason=reason))

    # -- starting

    def _start(self, command: Start, order: int) -> None:
        result_reader, result_writer = os.pipe()
        os.set_blocking(result_reader, False)
        server_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(result_reader)
            self._refuse(command, f"the worker's machine cannot start a process: {error.strerror}")
        else:
            if pid == 0:
                self._leave_inheritance(result_reader)
                fence = KernelFence(self._held_page, command.good_seconds)
                supervise(order, result_writer, server_pid, self._server, fence)
            self._workloads[pid] = Workload(command.lease, pid, result_reader, command.good_seconds)
            self.tell(Started(lease=command.lease, pid=pid))
        finally:
            os.close(result_writer)
            os.close(order)

    def _leave_inheritance(self, result_reader: int) -> None:
        """In the child: drop what is the fork server's, so that no task can speak in its name."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for end in (self._control, self._wake_reader, self._wake_writer):
            end.close()
        for descriptor in (result_reader, *(other.result for other in self._workloads.values())):
            os.close(descriptor)

    # -- ending

    def _reap(self) -> None:
        fenced = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                workload = self._workloads.pop(pid, None)
                if workload is not None:
                    how = self._end_of(workload, os.waitstatus_to_exitcode(status))
                    # What is handed over begins elsewhere at once: by then nothing of it may be left here.
                    later = pid in self._handed_over
                    self._not_told_yet.append(how) if later else self.tell(how)
                    fenced |= how.reason == FENCED
                self._sweep_soon()
        if fenced:  # what a task had started has outlived the lease, too
            self._sweep()

    def _end_of(self, workload: Workload, status: int) -> Exited:
        how = _end_of(workload, status)
        if workload.pid in self._handed_over and how.outcome is not Outcome.SUCCEEDED:
            return Exited(
                lease=workload.lease, outcome=Outcome.ABANDONED, exit_code=status, reason=HANDED_OVER
            )
        # Who comes too late to kill it was frozen, and the kernel has done it.
        killed_by_kernel = status == -signal.SIGKILL and self._is_over(workload)
        if workload.pid not in self._fenced and not killed_by_kernel:
            return how
        self._fenced.discard(workload.pid)
        # What its result may say does not count: the plane could not hear the task's own report either.
        return Exited(lease=workload.lease, outcome=Outcome.ABANDONED, exit_code=status, reason=FENCED)

    def _sweep_soon(self) -> None:
        if not self._sweep_is_due:
            self._sweep_is_due = True
            self._later.enter(SWEEP_DELAY_SECONDS, 0, self._sweep)

    def _sweep(self) -> None:
        """Kill the descendants of ended workloads: they are children of this process by now."""
        self._sweep_is_due = False
        left = [child for child in psutil.Process().children() if child.pid not in self._workloads]
        for child in left:
            _kill_tree(child.pid)
        if self._not_told_yet and left:
            self._sweep_soon()
            return
        while self._not_told_yet:
            self.tell(self._not_told_yet.pop(0))

    def _stop(self, command: Stop) -> None:
        for workload in self._workloads.values():
            if workload.lease == command.lease and command.hand_over:
                self._handed_over.add(workload.pid)
                _kill_tree(workload.pid)
            elif workload.lease == command.lease:
                # Airflow's supervisor passes SIGTERM on to the task, whose operator's on_kill runs.
                os.kill(workload.pid, signal.SIGTERM)
                grace = command.grace_seconds
                self._later.enter(grace, 0, self._kill_task, (workload,))
                self._later.enter(grace + frames.LOG_UPLOAD_SECONDS, 0, self._kill_supervisor, (workload,))

    def _kill_task(self, workload: Workload) -> None:
        if workload.pid in self._workloads:  # not reaped, so the pid is still this process
            _kill(psutil.Process(workload.pid).children(recursive=True))

    def _kill_supervisor(self, workload: Workload) -> None:
        if workload.pid in self._workloads:
            os.kill(workload.pid, signal.SIGKILL)

    def _kill_everything(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                _kill(psutil.Process().children(recursive=True))
                os.waitpid(-1, 0)  # what ends hands its children to this process: look again


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        # Not ours to kill: a task that runs as another user (run_as_user) belongs to sudo.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()


def _kill_tree(pid: int) -> None:
    """Kill a child of this process and all below it. Not reaped yet, so the pid is still its own."""
    root = psutil.Process(pid)
    # A supervisor goes before its task: it must not get to report that its task failed.
    _kill([root, *root.children(recursive=True)])


def _end_of(workload: Workload, status: int) -> Exited:
    try:
        # The pipe may stay open in a leftover of the task: take what is there, do not wait for its end.
        result = frames.decode_result(os.read(workload.result, frames.MAX_FRAME_BYTES))
    except BlockingIOError:
        result = None
    finally:
        os.close(workload.result)
    if result is not None:
        return Exited(
            lease=workload.lease, outcome=result.outcome, exit_code=result.exit_code, reason=result.reason
        )
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return Exited(
        lease=workload.lease,
        outcome=Outcome.FAILED,
        exit_code=status,
        reason=f"the task's supervisor process {how} before it could say how the task ended",
    )


def main() -> None:
    """Import, freeze, and serve the agent that started this process."""
    parser = argparse.ArgumentParser(description="internal; started by 'jetbridge worker'")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--agent-pid", type=int, required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--preload", nargs="*", default=[])
    options = parser.parse_args()

    die_with_parent(options.agent_pid, signal.SIGTERM)
    hide_memory()
    adopt_orphans()
    begun = time.monotonic()
    from jetbridge.worker import execute  # noqa: PLC0415 - after the lines above: it takes seconds

    execute.warm_up(options.server, tuple(options.preload))
    # Frozen objects are never looked at by the collector, so forks do not copy the pages they are on.
    gc.collect()
    gc.freeze()
    fork_server = ForkServer(socket.socket(fileno=options.control_fd), options.server)
    fork_server.tell(
        Ready(
            import_seconds=time.monotonic() - begun,
            modules=len(sys.modules),
            threads=threading.active_count(),
        )
    )
    fork_server.serve()


if __name__ == "__main__":
    main()
