"""
Markers, and a search for them that looks through encodings and compression.

A marker is planted where some data lives; found anywhere else, that data got there. It is looked for as it
is, in base64 of either alphabet and any alignment, in hex, percent-encoded, with escapes of JSON, and inside
of whatever can be decompressed (gzip, zlib, zstandard), to some depth: a compressed result in base64 in JSON,
for example.
"""

from __future__ import annotations

import binascii
import re
import secrets
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import cache
from urllib.parse import unquote_to_bytes

import zstandard

_DEPTH = 5
_MAX_BYTES = 64 << 20
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_HEX_RUN = re.compile(rb"(?:[0-9a-fA-F]{2}){12,}")
_PERCENT = re.compile(rb"(?:%[0-9a-fA-F]{2}){4,}|(?:[A-Za-z0-9_.~-]*%[0-9a-fA-F]{2}[A-Za-z0-9_.~-]*){2,}")
_COMPRESSED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|\x28\xb5\x2f\xfd")


def new_marker(name: str) -> str:
    """Return a text that is nowhere else: long enough that no chance finds it, and named for reports."""
    return f"mk{name.replace('-', '')}{secrets.token_hex(12)}"


def found_in(data: bytes, markers: Iterable[str]) -> set[str]:
    """Return the markers that are somewhere in ``data``, in any of the forms above."""
    found: set[str] = set()
    wanted = tuple(markers)
    for view in _views(data, _DEPTH):
        found.update(marker for marker in wanted if marker not in found and _is_in(marker, view))
        if len(found) == len(wanted):
            break
    return found


def _is_in(marker: str, view: bytes) -> bool:
    lowered = None
    for form in _forms(marker):
        if form in view:
            return True
    hexed = marker.encode().hex().encode()
    lowered = view.lower() if any(digit in hexed for digit in b"abcdef") else view
    return hexed in lowered


@cache
def _forms(marker: str) -> tuple[bytes, ...]:
    plain = marker.encode()
    percent = "".join(f"%{byte:02X}" for byte in plain).encode()
    escaped = "".join(f"\\u{byte:04x}" for byte in plain).encode()
    return (plain, percent, percent.lower(), escaped, *_base64_forms(plain))


def _base64_forms(plain: bytes) -> Iterator[bytes]:
    """Yield what any base64 of something around ``plain`` must contain, for each way the bits can fall."""
    for before in range(3):
        encoded = b64encode(b"\0" * before + plain)
        # Characters that depend on what comes before or after are cut off.
        start = (before * 8 + 5) // 6
        end = (before + len(plain)) * 8 // 6
        core = encoded[start:end]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))


def _views(data: bytes, depth: int) -> Iterator[bytes]:
    """Yield ``data`` and everything that is packed in it."""
    yield data
    if depth == 0:
        return
    for inner in _unpacked(data):
        yield from _views(inner, depth - 1)


def _unpacked(data: bytes) -> Iterator[bytes]:
    for match in _COMPRESSED.finditer(data):
        if (inner := _decompressed(data[match.start() :])) is not None:
            yield inner
    for match in _BASE64_RUN.finditer(data):
        yield from _packed_only(_base64_decoded(match[0]))
    for match in _HEX_RUN.finditer(data):
        yield from _packed_only([binascii.unhexlify(match[0])])
    if _PERCENT.search(data):
        yield unquote_to_bytes(data)


def _packed_only(decoded: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out what holds nothing further: the search knows plain text in base64 and hex by its look."""
    for inner in decoded:
        if _COMPRESSED.search(inner) or _BASE64_RUN.search(inner) or _HEX_RUN.search(inner):
            yield inner


def _base64_decoded(run: bytes) -> Iterator[bytes]:
    plain = run.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    for start in range(4):
        part = plain[start:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        try:
            yield binascii.a2b_base64(part + b"=" * (-len(part) % 4))
        except binascii.Error:
            continue


def _decompressed(data: bytes) -> bytes | None:
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError:
            return None
    inflate = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    parts: list[bytes] = []
    # In small steps: what is cut off, or goes on with something else, still gives its beginning.
    view, size = memoryview(data), 0
    for start in range(0, len(view), 4096):
        try:
            part = inflate.decompress(view[start : start + 4096])
        except zlib.error:
            break
        parts.append(part)
        size += len(part)
        if inflate.eof or size > _MAX_BYTES:
            break
    return b"".join(parts) if size > 8 else None
