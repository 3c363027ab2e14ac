"""
The warm process that forks. Run as ``python -m jetbridge.worker.forkserver``, by the agent only.

It imports Airflow once, freezes what it has, and then forks supervisors, which run one workload at a time:
the start of a task costs a fork instead of two seconds of imports, and the imported pages are shared. It is
started by exec, never forked from the agent's event loop, and has one thread, because a fork of several
copies their locks without the threads that would release them.

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
from functools import partial

import psutil

from jetbridge.agent.lease_clock import lease_time
from jetbridge.agent.prctl import adopt_orphans, die_with_parent, hide_memory
from jetbridge.contracts.messages import Outcome
from jetbridge.worker import frames
from jetbridge.worker.endings import FENCED, Workload, kill, kill_tree
from jetbridge.worker.frames import Exited, Hold, HungUpError, Ready, Start, Started, Stop
from jetbridge.worker.kernel_fence import HeldPage, KernelFence
from jetbridge.worker.supervisor import supervise
from jetbridge.worker.supervisors import Supervisor, WaitingSupervisors

SWEEP_DELAY_SECONDS = 0.25
"""Looking for leftovers reads all of /proc, so a burst of ending workloads shares one look."""


class TerminatedError(Exception):
    """SIGTERM arrived."""


class ForkServer:
    """
    The loop of the fork server: commands in; forks, signals and ends of supervisors out.

    :param control: socket pair to the agent
    :param server: address of the Execution API
    :param max_orders: workloads that one supervisor may run, one after another
    """

    def __init__(self, control: socket.socket, server: str, max_orders: int) -> None:
        self._control = control
        self._server = server
        self._later = sched.scheduler(lease_time)
        self._workloads: dict[int, Workload] = {}
        self._supervisors: dict[int, Supervisor] = {}
        self._waiting = WaitingSupervisors(self._later, max_orders)
        self._held = Hold(until=0.0, heard_at=0.0)
        self._held_page = HeldPage()
        self._fence: sched.Event | None = None
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
        self._held_page.write(self._held, list(self._supervisors))
        self._set_fence()

    def _set_fence(self) -> None:
        """Have the fence looked at no later than the first lease is over; earlier does no harm."""
        running = [workload for workload in self._workloads.values() if not workload.fenced]
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
            if not workload.fenced and self._is_over(workload):
                workload.fenced = True
                kill_tree(workload.pid)
        self._set_fence()

    def _is_over(self, workload: Workload) -> bool:
        return self._held.until_for(workload.good_seconds) <= lease_time()

    def _refuse(self, command: Start, reason: str) -> None:
        self.tell(Exited(lease=command.lease, outcome=Outcome.FAILED, reason=reason))

    # -- starting

    def _start(self, command: Start, order: int) -> None:
        try:
            supervisor = self._waiting.take(command, order) or self._fork(command, order)
        except OSError as error:
            self._refuse(command, f"the worker's machine cannot start a process: {error.strerror}")
        else:
            pid = supervisor.pid
            self._workloads[pid] = Workload(command.lease, pid, command.good_seconds)
            self.tell(Started(lease=command.lease, pid=pid))
        finally:
            os.close(order)

    def _fork(self, command: Start, order: int) -> Supervisor:
        """Fork a supervisor for an order; raises :class:`OSError`."""
        self._waiting.make_room()
        ours, theirs = frames.channel()
        server_pid = os.getpid()
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if pid == 0:
                os.close(order)  # as all others, it is handed this one over its channel
                self._leave_inheritance(ours)
                fence = KernelFence(self._held_page, command.good_seconds)
                supervise(theirs, server_pid, self._server, fence)
        ours.settimeout(0)
        supervisor = self._supervisors[pid] = Supervisor(pid, ours, command.dag_id)
        self._selector.register(ours, selectors.EVENT_READ, partial(self._on_result, supervisor))
        supervisor.hand(order)
        return supervisor

    def _leave_inheritance(self, channel: socket.socket) -> None:
        """In the child: drop what is the fork server's, so that no task can speak in its name."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        others = (other.channel for other in self._supervisors.values())
        for end in (self._control, self._wake_reader, self._wake_writer, channel, *others):
            end.close()

    # -- ending

    def _on_result(self, supervisor: Supervisor) -> None:
        """
        Take note of how a workload ended; if its supervisor takes another, it is over now.

        Else it is when the process is gone: what it says as its last word counts, what it says when it was
        killed for its lease does not.
        """
        workload = self._workloads.get(supervisor.pid)
        if supervisor.pid not in self._supervisors:
            return  # reaped a moment ago, in the same turn
        if (said := supervisor.listen()) is None:
            self._selector.unregister(supervisor.channel)
        elif said.again and workload and not (workload.fenced or workload.handed_over):
            del self._workloads[supervisor.pid]
            self.tell(workload.ended_as(said))
            # After a SIGTERM it is of no more use: the signal may still be on its way.
            supervisor.dismiss() if workload.told_to_stop else self._waiting.put(supervisor)

    def _reap(self) -> None:
        fenced = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if supervisor := self._supervisors.pop(pid, None):
                    self._bury(supervisor)
                    fenced |= self._note_end(supervisor, os.waitstatus_to_exitcode(status))
                self._sweep_soon()
        if fenced:  # what a task had started has outlived the lease, too
            self._sweep()

    def _note_end(self, supervisor: Supervisor, status: int) -> bool:
        """Tell how the workload of a supervisor that is gone ended; says whether it was for its lease."""
        workload = self._workloads.pop(supervisor.pid, None)
        if workload is None:
            return False
        how = workload.ended(supervisor.result, status, lease_is_over=self._is_over(workload))
        # What is handed over begins elsewhere at once: by then nothing of it may be left here.
        self._not_told_yet.append(how) if workload.handed_over else self.tell(how)
        return how.reason == FENCED

    def _bury(self, supervisor: Supervisor) -> None:
        supervisor.listen()
        self._waiting.remove(supervisor)
        with contextlib.suppress(KeyError):
            self._selector.unregister(supervisor.channel)
        supervisor.channel.close()

    def _sweep_soon(self) -> None:
        if not self._sweep_is_due:
            self._sweep_is_due = True
            self._later.enter(SWEEP_DELAY_SECONDS, 0, self._sweep)

    def _sweep(self) -> None:
        """Kill the descendants of ended workloads: they are children of this process by now."""
        self._sweep_is_due = False
        left = [child for child in psutil.Process().children() if child.pid not in self._supervisors]
        for child in left:
            kill_tree(child.pid)
        if self._not_told_yet and left:
            self._sweep_soon()
            return
        while self._not_told_yet:
            self.tell(self._not_told_yet.pop(0))

    def _stop(self, command: Stop) -> None:
        for workload in self._workloads.values():
            if workload.lease == command.lease and command.hand_over:
                workload.handed_over = True
                kill_tree(workload.pid)
            elif workload.lease == command.lease:
                # Airflow's supervisor passes SIGTERM on to the task, whose operator's on_kill runs.
                workload.told_to_stop = True
                os.kill(workload.pid, signal.SIGTERM)
                grace = command.grace_seconds
                self._later.enter(grace, 0, self._kill_task, (workload,))
                self._later.enter(grace + frames.LOG_UPLOAD_SECONDS, 0, self._kill_supervisor, (workload,))

    def _kill_task(self, workload: Workload) -> None:
        if self._runs(workload):
            kill(psutil.Process(workload.pid).children(recursive=True))

    def _kill_supervisor(self, workload: Workload) -> None:
        if self._runs(workload):
            os.kill(workload.pid, signal.SIGKILL)

    def _runs(self, workload: Workload) -> bool:
        """Whether the pid is still this workload's supervisor: not reaped, and not at its next."""
        return self._workloads.get(workload.pid) is workload

    def _kill_everything(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                kill(psutil.Process().children(recursive=True))
                os.waitpid(-1, 0)  # what ends hands its children to this process: look again


def main() -> None:
    """Import, freeze, and serve the agent that started this process."""
    parser = argparse.ArgumentParser(description="internal; started by 'jetbridge worker'")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--agent-pid", type=int, required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--max-orders", type=int, default=1)
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
    fork_server = ForkServer(socket.socket(fileno=options.control_fd), options.server, options.max_orders)
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
