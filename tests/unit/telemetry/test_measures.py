"""Processes of an agent tell what they measured; nobody waits for anybody."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jetbridge.telemetry import measures
from jetbridge.telemetry.measures import LOG_UPLOADED_BYTES, VARIABLE, XCOM_READ_BYTES, listening, tell


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "measures"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_a_fork_measures_arrives(pipe: Path) -> None:
    took: list[float] = []
    with listening(pipe, {XCOM_READ_BYTES: took.append}):
        if (pid := os.fork()) == 0:
            tell(XCOM_READ_BYTES, 12)
            os._exit(0)
        os.waitpid(pid, 0)
        tell(XCOM_READ_BYTES, 0.5)
        eventually(lambda: sorted(took) == [0.5, 12.0])
        assert stat.S_IMODE(pipe.stat().st_mode) == 0o600
    assert not pipe.exists()


def test_rubbish_is_skipped(pipe: Path) -> None:
    took: list[float] = []
    with listening(pipe, {XCOM_READ_BYTES: took.append}):
        writing = os.open(pipe, os.O_WRONLY)
        for rubbish in (
            b"\n",
            b"no\n",
            b"xcom_read_bytes nan\n",
            b"xcom_read_bytes -1\n",
            b"\xff 1\n",
            b"x" * 4000,
        ):
            os.write(writing, rubbish)
        os.write(writing, b"\n")
        os.close(writing)
        tell(LOG_UPLOADED_BYTES, 3)
        tell(XCOM_READ_BYTES, 4)
        eventually(lambda: took == [4.0])


def test_nobody_listens(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(XCOM_READ_BYTES, 1)  # no pipe
    os.mkfifo(pipe)
    tell(XCOM_READ_BYTES, 1)  # no reader
    monkeypatch.delenv(VARIABLE)
    tell(XCOM_READ_BYTES, 1)


def test_a_full_pipe_loses_measures_and_delays_nobody(pipe: Path) -> None:
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    try:
        begun = time.monotonic()
        for _ in range(10_000):
            tell(XCOM_READ_BYTES, 1)
        assert time.monotonic() - begun < 5
    finally:
        os.close(held)


def test_a_pipe_left_behind_is_replaced(pipe: Path) -> None:
    os.mkfifo(pipe)
    took: list[float] = []
    with listening(pipe, {XCOM_READ_BYTES: took.append}):
        tell(XCOM_READ_BYTES, 1)
        eventually(lambda: took == [1.0])


def test_names_are_short_enough_to_be_written_at_once() -> None:
    names = [
        value
        for name, value in vars(measures).items()
        if name.endswith(("_BYTES", "_SECONDS")) and isinstance(value, str)
    ]
    assert names
    assert all(len(name) < 100 for name in names)
