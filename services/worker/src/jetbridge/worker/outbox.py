"""
What a task under ``wait`` was told *yes* to while the plane was away, on disk until the plane has it.

One SQLite file per lease, named after it, made when the first call has to be kept: a file that is damaged
or full concerns its own task alone, and an attempt that is over is one file to delete. WAL and
``synchronous=FULL``: a call is on the disk before the task is told that it worked. The file holds no token.

A lease's supervisor alone uses it while it runs, and after its end the agent, this one or the next: so of two
processes never both deliver, and entries leave in the order they came.

======================  ====================================================================================
disk or quota full      the call is not kept, and waits for the connection as it would without ``wait``
file cannot be read     the lease ends as failed, with that as its reason; the file is put aside for people
======================  ====================================================================================
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jetbridge.contracts.ids import InvalidIdError, LeaseKey
from jetbridge.contracts.messages import Outcome

MAX_BYTES = 64 << 20
"""Of one lease. Sixteen of the largest calls the gateway takes; references of XCom values are far smaller."""

BUSY_SECONDS = 10.0
"""A supervisor that was killed may still hold its lock for the moment in which the kernel clears it away."""

_SUFFIX = ".sqlite"
_PAGE_BYTES = 4096

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    method TEXT NOT NULL, target TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS ends (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    outcome TEXT NOT NULL, exit_code INTEGER, reason TEXT NOT NULL
) STRICT;
"""


class OutboxError(Exception):
    """A lease's outbox cannot be used."""


class OutboxFullError(OutboxError):
    """Nothing more can be written, now."""


class OutboxDamagedError(OutboxError):
    """What is there cannot be read."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """
    One call of the Execution API. ``target`` is path and query below ``/execution/``, as they were sent.

    ``number`` is its place in the order; 0 for one that was not kept yet.
    """

    method: str
    target: str
    headers: dict[str, str] = {}
    body: bytes = b""
    number: int = 0

    def __repr__(self) -> str:
        return f"Call({self.method} {self.target}, {len(self.body)} bytes)"


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How the workload's process ended, as it is to be reported."""

    outcome: Outcome
    exit_code: int | None = None
    reason: str = ""


class Outbox:
    """The outbox of one lease. Nothing is opened or made before it is needed."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._open: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept."""
        return self.path.exists()

    def keep(self, call: Call, *, is_last: bool = False) -> None:
        """
        Keep a call; it is on the disk when this returns. Raises :class:`OutboxError`.

        ``is_last`` says that the task has come to its end with it, whatever becomes of its processes.
        """
        with self._writing() as database:
            headers = msgspec.json.encode(call.headers).decode()
            database.execute(
                "INSERT INTO calls (method, target, headers, body) VALUES (?, ?, ?, ?)",
                (call.method, call.target, headers, call.body),
            )
            if is_last:
                self._put_end(database, End(outcome=Outcome.SUCCEEDED))

    def end(self, how: End) -> None:
        """Keep how the process ended, in place of what was kept of it before. Raises :class:`OutboxError`."""
        with self._writing() as database:
            self._put_end(database, how)

    def first(self) -> Call | None:
        """Return the call that is to be delivered next. Raises :class:`OutboxDamagedError`."""
        if not self.exists:
            return None
        with _translated():
            row = self._database().execute("SELECT * FROM calls ORDER BY number LIMIT 1").fetchone()
        if row is None:
            return None
        number, method, target, headers, body = row
        known = msgspec.json.decode(headers, type=dict[str, str])
        return Call(number=number, method=method, target=target, headers=known, body=body)

    def kept_end(self) -> End | None:
        """Return how the process ended, as far as that was kept. Raises :class:`OutboxDamagedError`."""
        if not self.exists:
            return None
        with _translated():
            row = self._database().execute("SELECT outcome, exit_code, reason FROM ends").fetchone()
        return End(outcome=Outcome(row[0]), exit_code=row[1], reason=row[2]) if row else None

    def delivered(self, call: Call) -> None:
        """Forget a call that the plane has. Should that get lost, it is delivered twice: no harm."""
        with self._writing() as database:
            database.execute("DELETE FROM calls WHERE number = ?", (call.number,))

    def close(self) -> None:
        """Let go of the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def remove(self) -> None:
        """Delete the file: all is delivered, or the lease is lost."""
        self.close()
        for path in self._files():
            path.unlink(missing_ok=True)

    def put_aside(self) -> Path:
        """Keep a damaged file for people, under a name that nothing looks for; returns that name."""
        self.close()
        aside = self.path.with_suffix(".damaged")
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside.with_name(path.name.replace(_SUFFIX, ".damaged", 1)))
        return aside

    def _files(self) -> list[Path]:
        return [self.path.with_name(self.path.name + end) for end in ("", "-wal", "-shm")]

    @staticmethod
    def _put_end(database: sqlite3.Connection, how: End) -> None:
        database.execute(
            "INSERT OR REPLACE INTO ends (one, outcome, exit_code, reason) VALUES (1, ?, ?, ?)",
            (how.outcome.value, how.exit_code, how.reason),
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _translated():
            database = self._database()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    database.execute("ROLLBACK")
                raise

    def _database(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = self._connect()
        return self._open

    def _connect(self) -> sqlite3.Connection:
        is_new = not self.exists
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made by us and not by SQLite: nobody else may read it, whatever the umask; -wal and -shm follow it.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # Used from one thread at a time; the agent's deliveries hop between those of a pool.
        database = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA max_page_count = {self._max_bytes // _PAGE_BYTES}")
            database.executescript(_SCHEMA)
            if is_new:
                _sync_directory(self.path.parent)
        except BaseException:
            database.close()
            raise
        return database


def outbox_path(directory: Path, lease: str) -> Path:
    """Return where the outbox of a lease is, below the directory of all of an agent's."""
    return directory / f"{LeaseKey.parse(lease)}{_SUFFIX}"


def leases_in(directory: Path) -> list[str]:
    """Return the leases that have an outbox, whoever made it; other files are left alone."""
    found = []
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with contextlib.suppress(InvalidIdError):
            found.append(str(LeaseKey.parse(path.name.removesuffix(_SUFFIX))))
    return found


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn SQLite's errors into ours. What is not known to pass is damage: nothing is built on it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OutboxFullError(f"the outbox cannot be written: {error}") from error
    except (sqlite3.DatabaseError, msgspec.DecodeError, ValueError) as error:
        raise OutboxDamagedError(f"the outbox cannot be read: {error}") from error
    except OSError as error:
        raise OutboxFullError(f"the outbox cannot be written: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    """Have the name of a new file survive a power cut, too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
