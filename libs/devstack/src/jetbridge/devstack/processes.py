"""Child processes with a name, a log file and an end: nothing survives the one who started it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from jetbridge.devstack import guard
from jetbridge.devstack.errors import DevStackError

Probe = Callable[[], bool]
"""Asks a process once whether it is ready. Must not block for more than a second or two."""

Say = Callable[[str], None]
"""Takes one line of progress for the person who watches."""

_PR_SET_PDEATHSIG = 1
_PROBE_INTERVAL_SECONDS = 0.05
_LOG_TAIL_LINES = 25

# Loaded here, not between fork and exec, where only async-signal-safe work is allowed.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ProcessDiedError(DevStackError):
    """A process ended before it was ready, or while it was needed. Its last log lines are in the text."""


class NotReadyError(DevStackError):
    """A process lives but did not become ready in time. Its last log lines are in the text."""


def silent(_line: str) -> None:
    """Swallow progress lines; the default where nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """
    What to run. ``env`` is the whole environment: nothing is inherited.

    ``stop_signal`` asks for an orderly end; after ``stop_seconds`` comes SIGKILL.
    """

    argv: Sequence[str | Path]
    env: Mapping[str, str]
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0


@dataclass(eq=False)
class ManagedProcess:
    """One child process; may be stopped, killed and started again with the same command and log."""

    name: str
    command: Command
    log_path: Path
    mark: str
    tier: str
    _popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _asked_to_stop: bool = field(default=False, repr=False)
    _group_killed: bool = field(default=False, repr=False)

    def start(self) -> None:
        """Start it. The caller's thread must outlive the process: PDEATHSIG follows the *thread*."""
        if self.alive:
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._asked_to_stop = self._group_killed = False
        with self.log_path.open("ab") as log:
            self._popen = subprocess.Popen(  # noqa: S603 - commands come from this package
                [str(part) for part in self.command.argv],
                env={**self.command.env, guard.MARK: self.mark},
                cwd=self.command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops in order
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - only a prctl; see _die_with
            )

    @property
    def pid(self) -> int:
        """Return the process id of the current (or last) start."""
        return self._started().pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, ``-N`` for a death by signal N, or None while it runs."""
        return self._started().poll()

    def wait_ready(self, probe: Probe, *, timeout_seconds: float = 60.0) -> None:
        """
        Return when ``probe`` says so.

        Raises :class:`ProcessDiedError` or :class:`NotReadyError`.
        """
        deadline = time.monotonic() + timeout_seconds
        while not probe():
            self.check_alive()
            if time.monotonic() > deadline:
                msg = f"{self.name} was not ready after {timeout_seconds:.0f} s.{self._last_words()}"
                raise NotReadyError(msg)
            time.sleep(_PROBE_INTERVAL_SECONDS)

    def check_alive(self) -> None:
        """Raise :class:`ProcessDiedError` unless the process runs."""
        if not self.alive:
            msg = f"{self.name} ended with exit code {self.exit_code}.{self._last_words()}"
            raise ProcessDiedError(msg)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for its end and return the exit code; raises :class:`NotReadyError` when it goes on."""
        try:
            return self._started().wait(timeout_seconds)
        except subprocess.TimeoutExpired as exc:
            msg = f"{self.name} still runs after {timeout_seconds:.0f} s.{self._last_words()}"
            raise NotReadyError(msg) from exc

    def stop(self) -> None:
        """Ask it to end, wait, and kill it with its whole process group if it does not."""
        if self._popen is None or self._group_killed:
            return
        self.ask_to_stop()
        if self.alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(self.command.stop_seconds)
        self.kill()

    def ask_to_stop(self) -> None:
        """Send the stop signal, once: a second one makes many servers stop in a hurry."""
        if self.alive and not self._asked_to_stop:
            self._asked_to_stop = True
            self.signal(self.command.stop_signal)

    def kill(self) -> None:
        """SIGKILL the process and its process group, as the end of its container would, and reap it."""
        if self._popen is None or self._group_killed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._group_killed = True  # once only: later the number may be somebody else's

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the process itself, not to its children."""
        self._started().send_signal(number)

    def log_tail(self, lines: int = _LOG_TAIL_LINES) -> str:
        """Return the last lines of its log."""
        try:
            text = self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _last_words(self) -> str:
        return f" Its log {self.log_path} ends:\n{self.log_tail()}"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            msg = f"{self.name} was never started"
            raise DevStackError(msg)
        return self._popen


def _die_with(parent: int) -> Callable[[], None] | None:
    if _libc is None:
        return None
    prctl = _libc.prctl

    def set_parent_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before prctl: no signal would ever come
            os._exit(1)

    return set_parent_death_signal


class Supervisor:
    """
    Starts processes into one run directory and stops all of them, last started first.

    A context manager: every way out of the ``with`` block ends every process. ``kill -9`` of this
    process ends them too (PR_SET_PDEATHSIG and :mod:`~jetbridge.devstack.guard`).
    """

    def __init__(self, directory: Path, *, say: Say = silent) -> None:
        self.directory = directory
        self.say = say
        self.mark = secrets.token_hex(8)
        self._processes: list[ManagedProcess] = []
        self._clean_up = contextlib.ExitStack()
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", guard.__name__, self.mark, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        with _interrupts_held_back():
            self._stop_all()

    def add(self, name: str, command: Command, *, tier: str = "") -> ManagedProcess:
        """
        Register a process without starting it; the supervisor will stop it all the same.

        Neighbours of the same ``tier`` are asked to stop together, so that their time is shared.
        """
        log_path = self.directory / "logs" / f"{name}.log"
        process = ManagedProcess(name, command, log_path, self.mark, tier or name)
        self._processes.append(process)
        return process

    def start(
        self, name: str, command: Command, *, ready: Probe | None = None, timeout_seconds: float = 60.0
    ) -> ManagedProcess:
        """Start a process and, given a probe, wait until it is ready."""
        process = self.add(name, command)
        process.start()
        if ready is not None:
            process.wait_ready(ready, timeout_seconds=timeout_seconds)
        return process

    def run(self, name: str, command: Command, *, timeout_seconds: float) -> ManagedProcess:
        """Run a process to its end; raises :class:`ProcessDiedError` unless it exits with 0."""
        process = self.start(name, command)
        if process.wait(timeout_seconds) != 0:
            process.check_alive()
        return process

    def on_exit(self, action: Callable[[], None]) -> None:
        """Have ``action`` called after all processes ended, last registered first."""
        self._clean_up.callback(action)

    def tell_guard(self, line: str) -> None:
        """Name something the guard must clean up if this process is killed, e.g. ``netns NAME``."""
        if self._guard is None or self._guard.stdin is None:
            msg = "the supervisor is not running; use it as a context manager"
            raise DevStackError(msg)
        self._guard.stdin.write(line + "\n")
        self._guard.stdin.flush()

    @property
    def processes(self) -> Sequence[ManagedProcess]:
        """Every process that was added, in that order."""
        return tuple(self._processes)

    def check_alive(self) -> None:
        """Raise :class:`ProcessDiedError` for the first started process that has ended by a failure."""
        for process in self._processes:
            if process._popen is not None and process.exit_code not in (None, 0):  # noqa: SLF001 - own class
                process.check_alive()

    def _stop_all(self) -> None:
        for _, tier in itertools.groupby(reversed(self._processes), key=lambda process: process.tier):
            together = list(tier)
            for process in together:
                process.ask_to_stop()
            for process in together:
                process.stop()
        leaked = guard.kill_marked(self.mark)
        if leaked:
            self.say(f"killed what outlived its parent: {', '.join(leaked)}")
        self._clean_up.close()
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        if self._guard is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self.tell_guard(guard.CLEAN_EXIT)
        with contextlib.suppress(BrokenPipeError):
            self._guard.communicate()
        self._guard = None


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Keep a second, impatient Ctrl-C from cutting the clean-up short; every wait in it is bounded."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    held = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in held}
    try:
        for number in held:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
