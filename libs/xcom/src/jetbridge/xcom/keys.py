"""
Names of objects: readable, safe and never used twice.

``<prefix><dag>/<run>/<task>/<map index>/<key>.<32 hex digits>.json[.gz]``
"""

from __future__ import annotations

import hashlib
import uuid
from urllib.parse import quote

_SEGMENT_BYTES = 160
"""
Longest part of a key. S3 allows 1,024 bytes for the whole: four parts, a prefix of 256, the map index, the
unique part and the slashes stay below. Servers that keep objects as files allow 255 bytes for each part.
"""
_HASH_CHARS = 16


def xcom_object_key(  # noqa: PLR0913 - an XCom has this many coordinates
    *,
    prefix: str,
    dag_id: str | None,
    run_id: str | None,
    task_id: str | None,
    map_index: int | None,
    key: str | None,
    suffix: str,
) -> str:
    """
    Return a new key for an XCom value.

    The unique part makes every write a new object: a retry cannot change what a reference of an earlier
    try points to, and two writers cannot overwrite each other.
    """
    index = -1 if map_index is None else map_index
    folders = "/".join(segment(part or "unknown") for part in (dag_id, run_id, task_id))
    return f"{prefix}{folders}/{index}/{segment(key or 'unknown')}.{uuid.uuid4().hex}{suffix}"


def segment(text: str) -> str:
    """
    Return ``text`` as one part of a key.

    Everything but ASCII letters, digits and ``_.-~`` is percent-encoded (UTF-8): slashes, control
    characters, and ``+`` and ``:``, which some servers and tools change on the way. A part of only dots
    would be a path, so its dots are encoded too. Long parts are cut and end in ``~`` and a hash.
    """
    safe = quote(text.encode("utf-8", "surrogatepass"), safe="")
    if not safe.strip("."):
        safe = safe.replace(".", "%2E")
    if len(safe) <= _SEGMENT_BYTES:
        return safe
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]
    cut = safe[: _SEGMENT_BYTES - _HASH_CHARS - 1]
    for length in (1, 2):  # do not end in half an escape
        if cut[-length] == "%":
            cut = cut[:-length]
            break
    return f"{cut}~{digest}"
