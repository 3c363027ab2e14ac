"""What an outbox keeps, over the death of whoever kept it, and how it fails."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from jetbridge.contracts.messages import Outcome
from jetbridge.worker.outbox import (
    Call,
    End,
    Outbox,
    OutboxDamagedError,
    OutboxFullError,
    leases_in,
    outbox_path,
)

LEASE = "0190c3f4-0000-7000-8000-000000000001.7"
XCOM = Call(method="POST", target="xcoms/d/r/t/k", headers={"content-type": "application/json"}, body=b"1")
STATE = Call(method="PATCH", target="task-instances/x/state", body=b'{"state":"success"}')


@pytest.fixture
def path(tmp_path):
    return outbox_path(tmp_path / "outbox", LEASE)


@pytest.fixture
def outbox(path):
    outbox = Outbox(path)
    yield outbox
    outbox.close()


def drained(outbox):
    calls = []
    while call := outbox.first():
        outbox.delivered(call)
        calls.append((call.method, call.target, call.headers, call.body))
    return calls


def as_kept(*calls):
    return [(call.method, call.target, call.headers, call.body) for call in calls]


def test_an_outbox_that_kept_nothing_is_not_there(outbox, tmp_path):
    assert (outbox.first(), outbox.kept_end(), outbox.exists) == (None, None, False)
    assert leases_in(tmp_path / "outbox") == []


def test_calls_leave_in_the_order_they_came(outbox):
    for call in (XCOM, STATE, XCOM):
        outbox.keep(call)
    assert drained(outbox) == as_kept(XCOM, STATE, XCOM)


def test_the_last_call_is_an_end_until_a_better_one_is_known(outbox):
    outbox.keep(XCOM)
    assert outbox.kept_end() is None
    outbox.keep(STATE, is_last=True)
    assert outbox.kept_end() == End(outcome=Outcome.SUCCEEDED)
    told_to_stop = End(outcome=Outcome.FAILED, exit_code=-15, reason="told to stop")
    outbox.end(told_to_stop)
    assert outbox.kept_end() == told_to_stop


def test_another_process_finds_what_one_that_was_killed_has_kept(path):
    program = f"""
import os, signal
from pathlib import Path
from jetbridge.worker.outbox import Call, Outbox
outbox = Outbox(Path({str(path)!r}))
outbox.keep(Call(method="POST", target="one"))
outbox.keep(Call(method="POST", target="two"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert leases_in(path.parent) == [LEASE]
    outbox = Outbox(path)
    assert [target for _, target, _, _ in drained(outbox)] == ["one", "two"]
    outbox.remove()
    assert list(path.parent.iterdir()) == []


def test_nobody_else_may_read_it(outbox, path):
    before = os.umask(0)
    try:
        outbox.keep(XCOM)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_full_outbox_takes_nothing_more_and_keeps_what_it_has(path):
    outbox = Outbox(path, max_bytes=64 << 10)
    outbox.keep(XCOM)
    with pytest.raises(OutboxFullError, match="full"):
        outbox.keep(Call(method="POST", target="too much", body=b"x" * (128 << 10)))
    outbox.keep(STATE)
    assert drained(outbox) == as_kept(XCOM, STATE)
    outbox.close()


def test_a_disk_that_cannot_be_written_is_full(tmp_path):
    (tmp_path / "outbox").touch()
    outbox = Outbox(outbox_path(tmp_path / "outbox", LEASE))
    with pytest.raises(OutboxFullError):
        outbox.keep(XCOM)
    assert outbox.first() is None


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_damaged_outbox_says_so_and_can_be_put_aside(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    outbox = Outbox(path)
    for use in (outbox.first, outbox.kept_end, lambda: outbox.keep(XCOM)):
        with pytest.raises(OutboxDamagedError):
            use()
    aside = outbox.put_aside()
    assert aside.read_bytes() == content
    assert leases_in(path.parent) == []


def test_other_files_are_nobodys_outbox(tmp_path):
    (tmp_path / "x.sqlite").touch()
    (tmp_path / f"{LEASE}.damaged").touch()
    assert leases_in(tmp_path) == []


def test_a_call_shows_nothing_of_what_it_carries():
    assert "secret" not in repr(Call(method="PUT", target="x", headers={"a": "secret"}, body=b"secret"))
