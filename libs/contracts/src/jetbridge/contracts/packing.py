"""Compressed JSON that says by its hash what it is, and is taken apart within a limit of size."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, NamedTuple

import msgspec

MAX_UNPACKED_BYTES = 128 << 20
"""
Largest JSON taken out of a packed value. gzip makes at most 1,032 bytes of one, so without a limit 32 MiB
could become 32 GiB.
"""

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 6

_encoder = msgspec.json.Encoder()


class PackingError(ValueError):
    """Bytes that are not what their hash says, or not a whole packed value."""


class TooLargeError(PackingError):
    """More comes out than is taken."""


class Packed(NamedTuple):
    """``hash`` is the SHA-256 of the JSON, so it does not depend on how it was compressed."""

    hash: str
    data: bytes


def pack(value: Any) -> Packed:
    """Return ``value`` as JSON, gzipped, and its hash. Keys keep their order, which may mean something."""
    text = _encoder.encode(value)
    compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return Packed(hash_of(text), compressor.compress(text) + compressor.flush())


def unpack(packed: Packed, limit: int = MAX_UNPACKED_BYTES) -> bytes:
    """
    Return the JSON.

    Raises :class:`TooLargeError` once more than ``limit`` bytes came out, and :class:`PackingError` when
    the data is no gzip, ends early, has something after its end, or does not have the hash it claims.
    """
    decompressor = zlib.decompressobj(wbits=_GZIP)
    try:
        text = decompressor.decompress(packed.data, limit + 1)
    except zlib.error as exc:
        raise PackingError(f"not gzip: {exc}") from exc
    if len(text) > limit:
        raise TooLargeError(f"more than {limit} bytes unpacked")
    if not decompressor.eof:
        raise PackingError("the compressed data ends early")
    if decompressor.unused_data:
        raise PackingError("something follows the compressed data")
    if hash_of(text) != packed.hash:
        raise PackingError("the data is not what its hash says")
    return text


def hash_of(text: bytes) -> str:
    """Return the hash by which a value is known."""
    return hashlib.sha256(text).hexdigest()
