"""Whose address counts when proxies stand in front."""

import pytest

from jetbridge.gateway.origin import client_address

PROXIES = ("10.0.0.0/8", "2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("192.0.2.1", [], (), "192.0.2.1"),
        ("192.0.2.1", [b"198.51.100.7"], (), "192.0.2.1"),
        ("192.0.2.1", [b"198.51.100.7"], PROXIES, "192.0.2.1"),
        ("10.0.0.1", [], PROXIES, "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.7"], PROXIES, "198.51.100.7"),
        ("10.0.0.1", [b"1.1.1.1, 198.51.100.7"], PROXIES, "198.51.100.7"),
        ("10.0.0.1", [b"1.1.1.1, 198.51.100.7, 10.2.0.1"], PROXIES, "198.51.100.7"),
        ("10.0.0.1", [b"1.1.1.1", b"198.51.100.7", b"10.2.0.1"], PROXIES, "198.51.100.7"),
        ("10.0.0.1", [b"10.9.9.9, 10.2.0.1"], PROXIES, "10.9.9.9"),
        ("10.0.0.1", [b"198.51.100.7:4711"], PROXIES, "198.51.100.7"),
        ("10.0.0.1", [b"[2001:db8:2::5]:443"], PROXIES, "2001:db8:2::5"),
        ("2001:db8:1::1", [b"198.51.100.7"], PROXIES, "198.51.100.7"),
        ("::ffff:10.0.0.1", [b"198.51.100.7"], PROXIES, "198.51.100.7"),
        ("10.0.0.1", [b"198.51.100.7,,"], PROXIES, "10.0.0.1"),
        ("10.0.0.1", [b"nonsense"], PROXIES, "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.7, 10.3.0.1 10.2.0.1"], PROXIES, "10.0.0.1"),
        ("", [b"198.51.100.7"], PROXIES, ""),
        ("10.0.0.1", [b"x, " * 1000 + b"10.1.1.1"], PROXIES, "10.1.1.1"),
    ],
)
def test_the_rightmost_address_that_is_no_trusted_proxy(peer, forwarded, trusted, expected):
    assert client_address(peer, forwarded, trusted) == expected
