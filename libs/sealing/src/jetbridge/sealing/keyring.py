"""
AES-256-GCM with several keys: the newest seals, all of them open, so that keys are changed without a pause.

An envelope is text: ``jb1.<key id>.<nonce and ciphertext, URL-safe base64>``. The key id is a hash of the
key, so a key has the same id wherever it is, and says nothing about it. What an envelope is for
(``purpose``) is authenticated with it: the arguments of one task cannot be passed off as those of another.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import secrets
from base64 import b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from jetbridge.contracts.masking import SEALED, is_sealed

KEY_BYTES = 32
_NONCE_BYTES = 12
"""Random: safe for 2^32 envelopes under one key (NIST SP 800-38D, section 8.3), 13 years of ten a second."""

_FORMAT = "jb1"
_ID_CHARS = 12


class SealingError(Exception):
    """Something cannot be sealed or opened; the text says why, without what was in it."""


class KeyFileError(SealingError):
    """A file of keys cannot be used."""


class UnknownKeyError(SealingError):
    """An envelope was sealed with a key that is not here."""


class Sealer(Protocol):
    """What has keys."""

    def seal(self, data: bytes, purpose: str) -> str:
        """Return an envelope."""
        ...

    def open(self, envelope: str, purpose: str) -> bytes:
        """Return what is in an envelope; raises :class:`SealingError`."""
        ...

    def opens(self, envelope: str) -> bool:
        """Say whether an envelope is these keys' to open."""
        ...

    def seal_document(self, document: Any, purpose: str) -> dict[str, str]:
        """Return a JSON value as a sealed document."""
        ...

    def open_document(self, document: Any, purpose: str) -> Any:
        """Return what :meth:`seal_document` was given; raises :class:`SealingError`."""
        ...


class _Documents:
    """JSON values in envelopes."""

    def seal(self, data: bytes, purpose: str) -> str:
        raise NotImplementedError

    def open(self, envelope: str, purpose: str) -> bytes:
        raise NotImplementedError

    def seal_document(self, document: Any, purpose: str) -> dict[str, str]:
        """Return a JSON value as a sealed document."""
        return {SEALED: self.seal(json.dumps(document, separators=(",", ":")).encode(), purpose)}

    def open_document(self, document: Any, purpose: str) -> Any:
        """Return what :meth:`seal_document` was given; raises :class:`SealingError`."""
        if not is_sealed(document):
            raise SealingError("this is no sealed document")
        return json.loads(self.open(document[SEALED], purpose))


class Keyring(_Documents):
    """Keys, the newest first."""

    def __init__(self, keys: list[bytes]) -> None:
        """Take over at least one key of 32 bytes; raises :class:`KeyFileError`."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise KeyFileError(f"a key has {KEY_BYTES} bytes, and at least one is needed")
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._newest = key_id(keys[0])

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._ciphers)})"

    def seal(self, data: bytes, purpose: str) -> str:
        """Return an envelope."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._ciphers[self._newest].encrypt(nonce, data, purpose.encode())
        return f"{_FORMAT}.{self._newest}.{urlsafe_b64encode(sealed).decode()}"

    def open(self, envelope: str, purpose: str) -> bytes:
        """Return what is in an envelope; raises :class:`SealingError`."""
        version, _, rest = envelope.partition(".")
        name, _, text = rest.partition(".")
        if version != _FORMAT or not text:
            raise SealingError("this is no envelope that this version can open")
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise UnknownKeyError(
                f"it was sealed with key {name[:_ID_CHARS]}, which is not here; there are "
                f"{', '.join(self._ciphers)}. Give all agents of a site the same key file"
            )
        try:
            sealed = b64decode(text, altchars=b"-_", validate=True)
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, binascii.Error, ValueError) as exc:
            raise SealingError("the envelope was changed, or belongs somewhere else") from exc

    def opens(self, envelope: str) -> bool:
        """Say whether an envelope was sealed with one of these keys."""
        return envelope.startswith(tuple(f"{_FORMAT}.{name}." for name in self._ciphers))


class SiteKeys(_Documents):
    """
    The keys in a site's file, read again when it changed: a key is rotated without a restart.

    All agents of a site have the same file, which reaches them one after the other; so a key that is not
    here yet may be here the next time.
    """

    def __init__(self, file: Path) -> None:
        """Read the file; raises :class:`KeyFileError`."""
        self._file = file
        self._state = self._stat()
        self._keys = read_keyring(file)

    def __repr__(self) -> str:
        return f"SiteKeys({self._keys})"

    def seal(self, data: bytes, purpose: str) -> str:
        """Return an envelope."""
        return self._current().seal(data, purpose)

    def open(self, envelope: str, purpose: str) -> bytes:
        """Return what is in an envelope; raises :class:`SealingError`."""
        return self._current().open(envelope, purpose)

    def opens(self, envelope: str) -> bool:  # noqa: ARG002 - see below
        """Say yes: what reaches an agent sealed is its site's, and if not, opening it says what is wrong."""
        return True

    def _current(self) -> Keyring:
        if (state := self._stat()) != self._state:
            self._keys, self._state = read_keyring(self._file), state
        return self._keys

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._file.stat()
        except OSError:  # being replaced, or gone: what was read counts until there is something new
            return getattr(self, "_state", (0, 0, 0))
        return found.st_ino, found.st_size, found.st_mtime_ns


def key_id(key: bytes) -> str:
    """Return the public name of a key."""
    return hashlib.sha256(b"jetbridge key id\x00" + key).hexdigest()[:_ID_CHARS]


def new_key() -> str:
    """Return a key as it is written into a file."""
    return urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def read_keyring(file: Path) -> Keyring:
    """
    Return the keys of a file: one a line in URL-safe base64, the newest first; ``#`` begins a remark.

    Raises :class:`KeyFileError`, which names the file and the line but nothing of a key.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is no text"
        raise KeyFileError(f"the site key file {file} cannot be read: {reason}") from exc
    keys = []
    for number, line in enumerate(lines, start=1):
        if not (text := line.partition("#")[0].strip()):
            continue
        try:
            keys.append(b64decode(text, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError) as exc:
            raise KeyFileError(f"line {number} of the site key file {file} is no base64") from exc
    try:
        return Keyring(keys)
    except KeyFileError as exc:
        raise KeyFileError(f"the site key file {file}: {exc}; 'jetbridge site-key create' makes one") from exc
