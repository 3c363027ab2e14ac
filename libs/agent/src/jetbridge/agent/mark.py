"""
What an agent leaves in its data directory so that somebody outside can tell that it is gone, all of it.

``agent.json`` says which process of which agent works here. ``processes-<instance>.lock`` is locked for as
long as any process holds its descriptor: the agent, and whatever it forks or starts with it. The kernel frees
the lock with the last of them, whichever way they end, so *unlocked* means *gone*, and no reused process id
can pose as the agent. Programs that tasks start by exec do not inherit the descriptor; they are recognised by
``JETBRIDGE_AGENT_INSTANCE`` in their environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jetbridge.agent.settings import AgentSettings

MARK_FILE = "agent.json"
INSTANCE_VARIABLE = "JETBRIDGE_AGENT_INSTANCE"

_LOCKS = "processes-*.lock"


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One process of an agent.

    ``started_ticks`` is the process' start as the kernel has it (field 22 of ``/proc/<pid>/stat``).
    ``pid_namespace`` is where ``pid`` means this process. ``stopped``: it ended in order.
    """

    name: str
    instance: str
    role: str
    site: str = ""
    pid: int
    started_ticks: int = 0
    pid_namespace: str = ""
    stopped: bool = False


def lock_file(data_dir: Path, instance: str) -> Path:
    """Return the file whose lock the processes of one instance hold."""
    return data_dir / f"processes-{instance}.lock"


def started_ticks(pid: int) -> int:
    """Return when a process started, in ticks since the machine did; 0 where it is not there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The second field is the command in brackets, which may hold anything, brackets and spaces included.
    return int(stat.rpartition(")")[2].split()[19])


def pid_namespace() -> str:
    """Return a name for the PID namespace of this process; empty where there are none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def read_mark(data_dir: Path) -> Mark | None:
    """Return the mark in a data directory; None when there is none, or none that can be read."""
    try:
        return msgspec.json.decode((data_dir / MARK_FILE).read_bytes(), type=Mark)
    except (OSError, msgspec.DecodeError):
        return None


@contextlib.contextmanager
def leave_mark(settings: AgentSettings, instance: str, role: str) -> Iterator[int]:
    """
    Mark the data directory, which this process must have locked; yield the descriptor to pass on.

    The descriptor is not inherited by exec unless it is passed on (``pass_fds``).
    """
    data_dir = settings.data_dir
    _sweep(data_dir)
    descriptor = os.open(
        lock_file(data_dir, instance), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    mark = Mark(
        name=settings.name,
        instance=instance,
        role=role,
        site=settings.site,
        pid=os.getpid(),
        started_ticks=started_ticks(os.getpid()),
        pid_namespace=pid_namespace(),
    )
    _write(data_dir, mark)
    if settings.termination_log is not None:
        _tell_container(settings.termination_log, mark)
    try:
        yield descriptor
    finally:
        _write(data_dir, msgspec.structs.replace(mark, stopped=True))
        os.close(descriptor)


def all_gone(data_dir: Path, instance: str) -> bool | None:
    """Say whether no process holds the lock of an instance any more; None when that cannot be told."""
    try:
        descriptor = os.open(lock_file(data_dir, instance), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _sweep(data_dir: Path) -> None:
    """Remove the locks of earlier processes; one that is still held belongs to what is ending."""
    for path in data_dir.glob(_LOCKS):
        if all_gone(data_dir, path.stem.removeprefix("processes-")):
            path.unlink(missing_ok=True)


def _write(data_dir: Path, mark: Mark) -> None:
    new = data_dir / f"{MARK_FILE}.new"
    with contextlib.suppress(OSError):  # a full disk must not keep an agent from working, or from ending
        new.write_bytes(msgspec.json.encode(mark))
        new.replace(data_dir / MARK_FILE)


def _tell_container(path: Path, mark: Mark) -> None:
    """Leave the mark where Kubernetes shows it once the container has ended, in the pod's status."""
    with contextlib.suppress(OSError):
        path.write_bytes(msgspec.json.encode(mark))
