"""The page about the boundary is what the table says today, and the table is whole in itself."""

from pathlib import Path

from jetbridge.contracts.boundary import CLASSES, DataClass, Handling, Rule
from jetbridge.contracts.crossings import CROSSINGS
from jetbridge.devstack.boundary_reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "boundary.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == reference(), (
        "run `python -m jetbridge.devstack.boundary_reference > docs/boundary.md`"
    )


def test_every_class_has_rules_and_a_crossing_or_none_on_purpose():
    assert set(CLASSES) == set(DataClass)
    crossing = {one.data for one in CROSSINGS}
    assert set(DataClass) - crossing == {DataClass.LOG_LINES}, "no operation carries log lines"


def test_what_policies_decide_about_is_closed_unless_they_open_it():
    for rules in CLASSES.values():
        assert (rules.default is Rule.OPEN) == (rules.closed is Handling.ALWAYS)
        assert rules.about


def test_no_row_comes_twice():
    rows = [(one.operation, one.field, one.data, one.to) for one in CROSSINGS]
    assert len(rows) == len(set(rows))
