"""The search that the marker test relies on finds what is planted, in every form it claims to know."""

import base64
import gzip
import json
import zlib
from urllib.parse import quote

import pytest
import zstandard

from jetbridge.devstack.markers import found_in, new_marker

MARKER, OTHER = new_marker("some-class"), new_marker("other")
AROUND = [b"", b"x", b"xy", b'{"key": "']


FORMS = {
    "plain": lambda text: text,
    "base64": base64.b64encode,
    "url-safe base64": base64.urlsafe_b64encode,
    "base64 without padding": lambda text: base64.b64encode(text).rstrip(b"="),
    "hex": lambda text: text.hex().encode(),
    "upper-case hex": lambda text: text.hex().upper().encode(),
    "percent-encoded": lambda text: "".join(f"%{byte:02x}" for byte in text).encode(),
    "quoted": lambda text: quote(text.decode() + "/é ").encode(),
    "escapes of JSON": lambda text: "".join(f"\\u{byte:04x}" for byte in text).encode(),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zlib, fast": lambda text: zlib.compress(text, 1),
    "zstandard": zstandard.ZstdCompressor().compress,
    "gzip in base64 in JSON": lambda text: json.dumps(
        {"result": base64.b64encode(gzip.compress(text)).decode()}
    ).encode(),
    "gzip in hex, as of a dump": lambda text: b"\\x" + gzip.compress(text).hex().encode(),
    "base64 in gzip": lambda text: gzip.compress(base64.b64encode(text)),
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text)),
    "zlib in base64 in zlib": lambda text: zlib.compress(base64.b64encode(zlib.compress(text))),
    "zstandard in base64": lambda text: base64.b64encode(zstandard.ZstdCompressor().compress(text)),
    "JSON in percent in base64": lambda text: base64.b64encode(
        quote(json.dumps({"a": text.decode()})).encode()
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", AROUND)
@pytest.mark.parametrize("after", AROUND)
def test_a_planted_marker_is_found(form, before, after):
    packed = FORMS[form](before + MARKER.encode() + after)
    data = b"noise before\n" + packed + b"\nnoise after"
    assert found_in(data, [MARKER, OTHER]) == {MARKER}


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_found_where_nothing_was_planted(form):
    packed = FORMS[form](b'{"key": "' + OTHER.encode() + b'"}')
    assert found_in(b"noise" + packed, [MARKER]) == set()


def test_a_cut_compressed_stream_still_shows_its_beginning():
    text = MARKER.encode() + bytes(range(256)) * 400
    assert found_in(gzip.compress(text)[:-200], [MARKER]) == {MARKER}


def test_an_encoding_that_is_not_at_the_beginning_of_a_run():
    assert found_in(b"abc" + base64.b64encode(gzip.compress(MARKER.encode())), [MARKER]) == {MARKER}


def test_a_marker_is_not_found_by_its_first_half():
    assert found_in(MARKER[:-4].encode(), [MARKER]) == set()
