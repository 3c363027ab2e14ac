"""The checker of tests/chaos itself: it accepts what may be and finds, by name, what must never be."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos" / "support"))

from chaoskit.marks import Mark, attempts_of, check, read
from chaoskit.recovery import Recoveries

TI = "0190aaaa-0000-7000-8000-00000000000{}"


def attempt(start, end, *, task="show[0]", ti=1, epoch=10, number=1, agent="one", pid=1, finished=True):
    """Return the marks of one attempt."""
    kinds = [(start, "started"), ((start + end) / 2, "runs"), (end, "finished" if finished else "runs")]
    return [
        Mark(
            task=task,
            ti=TI.format(ti),
            lease=f"{TI.format(ti)}.{epoch}",
            attempt=number,
            agent=agent,
            pid=pid,
            kind=kind,
            at=at,
        )
        for at, kind in kinds
    ]


def rules(marks, expected=("show[0]",), **options):
    return [violation.rule for violation in check(marks, expected, **options)]


FIRST = attempt(0, 10, finished=False)
SECOND = {"ti": 2, "epoch": 20, "number": 2, "agent": "two", "pid": 2}


def test_one_attempt_that_finished_is_fine():
    assert rules(attempt(0, 1), undisturbed=True) == []


def test_a_second_attempt_after_the_end_of_the_first_is_fine():
    assert rules(FIRST + attempt(10.1, 12, **SECOND)) == []


def test_the_order_of_lines_in_the_file_does_not_matter():
    assert rules([*reversed(attempt(10.1, 12, **SECOND)), *FIRST]) == []


def test_what_finished_and_ran_again_because_nobody_could_be_told_is_fine():
    assert rules(attempt(0, 10) + attempt(11, 12, **SECOND)) == []


@pytest.mark.parametrize(
    ("rule", "marks"),
    [
        ("lost", []),
        ("lost", FIRST),
        ("twice at once", FIRST + attempt(9.9, 12, **SECOND)),
        ("twice at once", FIRST + attempt(2, 3, **SECOND)),
        ("twice at once", FIRST + attempt(10, 12, **SECOND)),
        ("one lease twice", FIRST + attempt(11, 12, pid=2)),
        ("older lease later", FIRST + attempt(11, 12, **SECOND | {"epoch": 9})),
        ("try number fell", attempt(0, 1, number=2) + attempt(11, 12, **SECOND | {"number": 1})),
    ],
)
def test_what_must_not_be_is_found(rule, marks):
    assert rules(marks) == [rule]


def test_a_third_attempt_beside_the_first_is_found_though_the_second_was_short():
    third = {"ti": 3, "epoch": 30, "number": 3, "agent": "one", "pid": 3}
    found = rules(attempt(0, 10) + attempt(11, 30, **SECOND, finished=False) + attempt(12, 13, **third))
    assert found == ["twice at once"]
    fourth = {"ti": 4, "epoch": 40, "number": 4, "agent": "one", "pid": 4}
    long_one = attempt(0, 100, finished=False)
    found = rules(long_one + attempt(10, 11, **SECOND) + attempt(20, 21, **third) + attempt(30, 31, **fourth))
    assert found == ["twice at once"] * 3


def test_where_nothing_was_lost_nothing_may_run_again():
    assert rules(FIRST + attempt(11, 12, **SECOND), undisturbed=True) == ["ran again"]


def test_a_task_nobody_expected_is_found():
    assert rules(attempt(0, 1, task="other[0]"), expected=()) == ["unknown task"]


def test_two_tasks_may_run_beside_each_other():
    assert rules(attempt(0, 10) + attempt(0, 10, task="show[1]", ti=2), ("show[0]", "show[1]")) == []


def test_a_line_that_is_being_written_is_left_for_the_next_look(tmp_path):
    line = json.dumps({name: getattr(FIRST[0], name) for name in Mark.__struct_fields__})
    (tmp_path / "marks").write_text(f"{line}\n{line[:20]}")
    assert read(tmp_path / "marks") == FIRST[:1]
    assert read(tmp_path / "absent") == []


def test_attempts_come_in_the_order_of_their_starts():
    found = attempts_of(attempt(10.1, 12, **SECOND) + FIRST)
    assert [(one.number, one.start, one.end, one.finished) for one in found] == [
        (1, 0, 10, False),
        (2, 10.1, 12, True),
    ]


def test_recoveries_as_a_table_and_as_a_file(tmp_path):
    recoveries = Recoveries()
    for seconds in (3.0, 1.0, 2.0, None):
        recoveries.note("agent killed", seconds)
    recoveries.note("link cut", None)
    recoveries.write(tmp_path / "deep" / "report.json", seed="7")
    written = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert written["seed"] == "7"
    assert written["rows"][0] == {
        "scenario": "agent killed",
        "bursts": 4,
        "unnoticed": 1,
        "median_seconds": 2.0,
        "worst_seconds": 3.0,
    }
    assert written["rows"][1]["worst_seconds"] is None
    assert len(list(recoveries.table())) == 3
