"""What a token may be used for."""

import pytest

from jetbridge.contracts.scopes import TokenScopes, is_restricted, is_within, networks, outside


@pytest.mark.parametrize(
    ("names", "scope", "expected"),
    [
        (("a",), (), ()),
        (("a", "b"), ("a",), ("b",)),
        (("gpu-large", "gpu"), ("gpu-*",), ("gpu",)),
        (("anything",), ("*",), ()),
        (("a*",), ("a",), ("a*",)),
        (("A",), ("a",), ("A",)),
        ((), ("a",), ()),
    ],
)
def test_names_outside_a_scope(names, scope, expected):
    assert outside(names, scope) == expected


@pytest.mark.parametrize(
    ("address", "cidrs", "expected"),
    [
        ("192.0.2.1", (), True),
        ("", (), True),
        ("192.0.2.1", ("192.0.2.0/24",), True),
        ("192.0.3.1", ("192.0.2.0/24",), False),
        ("192.0.2.1", ("192.0.2.1",), True),
        ("::ffff:192.0.2.1", ("192.0.2.0/24",), True),
        ("2001:db8::1", ("192.0.2.0/24", "2001:db8::/32"), True),
        ("2001:db8::1", ("0.0.0.0/0",), False),
        ("fe80::1%eth0", ("fe80::/10",), True),
        ("nonsense", ("0.0.0.0/0",), False),
        ("", ("0.0.0.0/0", "::/0"), False),
    ],
)
def test_addresses(address, cidrs, expected):
    assert is_within(address, cidrs) is expected


def test_what_is_no_network_is_an_error():
    for text in ("10.1.2.3/8", "x", "10.0.0.0/33", ""):
        with pytest.raises(ValueError, match=r"network|prefixlen|host bits"):
            networks((text,))


def test_without_scopes_nothing_is_restricted():
    assert not is_restricted(TokenScopes())
    assert is_restricted(TokenScopes(cidrs=("::/0",)))
