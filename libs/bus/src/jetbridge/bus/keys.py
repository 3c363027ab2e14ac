"""Signing keys that gateways share: whoever comes first makes one, everybody else reads it."""

from __future__ import annotations

import secrets
from contextlib import suppress

from nats.js.errors import KeyNotFoundError

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import ConflictError
from jetbridge.bus.kv import answered
from jetbridge.contracts.subjects import KEYS_BUCKET

TRIGGER_DATA_KEY = "trigger-data"
"""
What deferred tasks carry over is sealed with this one for the time it is stored, where their site has no key
of its own. It is in NATS and what it seals in PostgreSQL: neither opens without the other.
"""

KEY_BYTES = 64
"""HS256 wants at least 32 bytes (RFC 7518, section 3.2)."""


async def shared_key(bus: Bus, name: str) -> bytes:
    """Return the key called ``name``, making it if nobody has. Two makers race; one key wins."""
    kv = await bus.bucket(KEYS_BUCKET)
    while True:
        try:
            entry = await answered(kv.get(name))
        except KeyNotFoundError:
            with suppress(ConflictError):  # somebody else made it since our read; read theirs
                await answered(kv.create(name, secrets.token_bytes(KEY_BYTES)))
            continue
        return bytes(entry.value or b"")
