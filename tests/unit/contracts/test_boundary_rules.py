"""What is open, given what policies say."""

import pytest

from jetbridge.contracts.boundary import (
    CLASSES,
    DataClass,
    Handling,
    advice_for,
    check_rule,
    decide,
    decision_of,
    opened_beyond_default,
)


def test_by_default_only_what_always_crosses_is_open():
    decision = decide(lambda _data: None)
    assert decision.open == {data for data, rules in CLASSES.items() if rules.closed is Handling.ALWAYS}
    assert opened_beyond_default(decision) == ()


def test_a_policy_opens_exactly_its_class():
    decision = decide(lambda data: "open" if data == "rendered-fields" else None)
    assert decision.open - decide(lambda _data: None).open == {DataClass.RENDERED_FIELDS}
    assert opened_beyond_default(decision) == ("rendered-fields",)


def test_agents_are_told_what_is_open_and_ignore_what_they_do_not_know():
    assert decision_of(("rendered-fields", "of-next-year")) == decide(
        lambda data: "open" if data == "rendered-fields" else None
    )


def test_an_unknown_rule_closes():
    assert not decide(lambda _data: "half-open").is_open(DataClass.XCOM_VALUES)


def test_no_policy_closes_what_the_plane_needs():
    assert decide(lambda _data: "closed").is_open(DataClass.STATES)


@pytest.mark.parametrize(
    ("data", "rule", "part"),
    [
        ("xcom-value", "open", "classes of data are"),
        ("states", "closed", "nothing is decided about 'states'"),
        ("xcom-values", "opened", "open or closed"),
    ],
)
def test_a_mistake_is_explained(data, rule, part):
    with pytest.raises(ValueError, match=part):
        check_rule(data, rule)


def test_a_rule_that_fits():
    check_rule("xcom-values", "open")


def test_every_advice_is_a_sentence_that_names_the_class():
    for data in DataClass:
        text = advice_for(data)
        assert text[0].isupper()
        assert text.endswith(".")
        assert f"boundary.{data}=open" in text
