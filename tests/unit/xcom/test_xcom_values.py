"""JSON values as bytes and back."""

from __future__ import annotations

import random
from base64 import b64encode
from io import BytesIO
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jetbridge.xcom.reference import Encoding
from jetbridge.xcom.values import read_value, write_value

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(_json)
@example("\ud800 lone surrogate")
@example("é日😀" * 1000)
@example({"": [float("inf"), 10**400]})
def test_any_json_value_survives(value: Any) -> None:
    target = BytesIO()
    assert read_value(target, write_value(value, target)) == value


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        ("region,amount\n" * 100_000, "gzip"),
        ("small", "identity"),
        (b64encode(random.Random(1).randbytes(100_000)).decode(), "identity"),  # noqa: S311 - test data
    ],
    ids=["rows", "small", "noise"],
)
def test_only_what_shrinks_is_compressed(value: str, encoding: Encoding) -> None:
    target = BytesIO()
    assert write_value(value, target) == encoding
    assert read_value(target, encoding) == value


def test_the_same_value_gives_the_same_bytes() -> None:
    first, second = BytesIO(), BytesIO()
    write_value(["same"] * 10_000, first)
    write_value(["same"] * 10_000, second)
    assert first.getvalue() == second.getvalue()
