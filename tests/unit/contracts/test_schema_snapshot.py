"""A contract that moves without a new version breaks a peer that was not upgraded yet."""

import json
from pathlib import Path

import pytest

from jetbridge.contracts.schema import snapshot

SNAPSHOT = Path(__file__).with_name("schema_snapshot.json")


def kept() -> dict:
    return json.loads(SNAPSHOT.read_text())


def current() -> dict:
    return json.loads(json.dumps(snapshot()))  # tuples in defaults become lists, as in the file


def moved(before: dict, now: dict) -> list[str]:
    """Names that are in both and differ, plus names that vanished. New names are free."""
    return [
        f"{group}: {name}"
        for group, names in before.items()
        for name in names
        if names[name] != now.get(group, {}).get(name)
    ]


def test_no_shape_moved_without_a_new_version():
    assert moved(kept(), current()) == [], (
        "These shapes moved. Give the message, record or API a new version and keep reading the old one; "
        "a field with a default on an unreleased version may be added by running "
        "`python -m jetbridge.contracts.schema > tests/unit/contracts/schema_snapshot.json`."
    )


def test_every_contract_is_in_the_snapshot():
    now = current()
    new = [name for group in now for name in now[group] if name not in kept().get(group, {})]
    assert new == [], (
        "New contracts: add them with `python -m jetbridge.contracts.schema > …/schema_snapshot.json`."
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s["messages"].pop("workload.submitted.v1"), ["messages: workload.submitted.v1"]),
        (
            lambda s: s["records"]["TokenRecord.v1"]["TokenRecord"]["required"].pop(),
            ["records: TokenRecord.v1"],
        ),
        (lambda s: s["messages"].update({"workload.submitted.v2": {}}), []),
    ],
    ids=["vanished", "changed", "added"],
)
def test_the_check_itself_notices(change, expected):
    now = current()
    change(now)
    assert moved(current(), now) == expected
