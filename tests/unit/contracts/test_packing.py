"""Packed values: what goes in comes out, within limits, and nothing else does."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.contracts.packing import Packed, PackingError, TooLargeError, hash_of, pack, unpack

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_what_goes_in_comes_out(value):
    import msgspec

    packed = pack(value)
    assert msgspec.json.decode(unpack(packed)) == value
    assert pack(value) == packed


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data):
    with pytest.raises(PackingError):
        unpack(Packed(hash_of(data), data))


@given(json_values, st.data())
def test_a_cut_or_changed_value_is_refused(value, draw):
    packed = pack(value)
    at = draw.draw(st.integers(0, len(packed.data) - 1))
    with pytest.raises(PackingError):
        unpack(Packed(packed.hash, packed.data[:at]))


def test_a_bomb_stops_at_the_limit():
    data = gzip.compress(b"0" * (64 << 20))
    assert len(data) < 1 << 20
    with pytest.raises(TooLargeError):
        unpack(Packed("0" * 64, data), limit=1 << 20)


def test_exactly_the_limit_is_taken():
    text = b'"' + b"x" * 998 + b'"'
    assert unpack(Packed(hash_of(text), gzip.compress(text)), limit=1000) == text
    with pytest.raises(TooLargeError):
        unpack(Packed(hash_of(text), gzip.compress(text)), limit=999)


def test_keys_keep_their_order():
    assert pack({"b": 1, "a": 2}).hash != pack({"a": 2, "b": 1}).hash
