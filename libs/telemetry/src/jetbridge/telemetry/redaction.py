"""
Takes secrets out of log events: agent tokens, JWTs, ``Authorization`` values, passwords in URLs.

The last line of defence, not the first: code should not log a secret at all. It therefore prefers to
mask too much. Identifiers that are public (the id of an agent token) stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

MASK = "***"
_MAX_DEPTH = 8
"""Events nested deeper than this are masked whole: they are not log fields any more."""

_SECRET_FIELD = re.compile(
    r"(?i)^(?:.*[_-])?(?:authorization|cookie|credentials?|passw(?:or)?d|passphrase|secret|secret[_-]key"
    r"|private[_-]key|api[_-]?key|signing[_-]key|token|bearer)$"
)

_AGENT_TOKEN = re.compile(r"\bjb_([0-9a-z]{1,32})_[0-9A-Za-z_-]{4,}")
"""``jb_<id>_<secret>``: the id names the token in lists and is no secret. A token cut short counts too."""

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (_AGENT_TOKEN, rf"jb_\1_{MASK}"),
    # A JWT's header is a JSON object, so its base64url text always begins with eyJ.
    (re.compile(r"\beyJ[0-9A-Za-z_-]{4,}(?:\.[0-9A-Za-z_-]*){1,4}"), MASK),
    (
        re.compile(
            r"(?i)(\b(?:proxy-)?authorization\b[\"']?\s*[:=,]\s*(?:b?[\"'])?)"
            r"(?:(?:basic|bearer|digest|negotiate|aws4-hmac-sha256)\s+)?[^\s\"',}]+"
        ),
        rf"\1{MASK}",
    ),
    # The scheme alone, as in "sent Bearer abc…": only when what follows cannot be an English word.
    (re.compile(r"(?i)\b(bearer|basic)\s+(?=[^\s\"']*[0-9=+/_])[0-9a-z+/=._~-]{8,}"), rf"\1 {MASK}"),
    # scheme://user:password@host; greedy, so a password with an @ in it is masked whole.
    (re.compile(r"([A-Za-z][\w+.-]*://[^\s/:@\"']*):[^\s/\"']+@"), rf"\1:{MASK}@"),
    # scheme://<long token>@host, as hosting services hand out.
    (re.compile(r"([A-Za-z][\w+.-]*://)[^\s/:@\"']{20,}@"), rf"\1{MASK}@"),
    # password=…, "secret_key": "…", ?X-Amz-Signature=…
    (
        re.compile(
            r"(?i)([\w-]*(?:passw(?:or)?d|passphrase|secret|secret[_-]?key|api[_-]?key|private[_-]?key"
            r"|access[_-]?token|x-amz-signature|x-amz-security-token)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;})]+"
        ),
        rf"\1{MASK}",
    ),
)

_HINT = re.compile(r"(?i)jb_|eyJ|auth|bearer|basic|://|passw|passphrase|secret|key|token|signature")
"""Nearly every log text holds none of these, and one search is cheaper than seven."""


def redact_text(text: str) -> str:
    """Return ``text`` with everything that looks like a secret replaced by ``***``."""
    if not _HINT.search(text):
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any, *, depth: int = 0) -> Any:
    """
    Return ``value`` as plain JSON types without secrets.

    Objects become their text *here*, not in the renderer, so that no text escapes the rules.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return redact_text(_text_of(value))
    if depth >= _MAX_DEPTH:
        return MASK
    if isinstance(value, Mapping):
        return {str(key): redact_field(str(key), item, depth=depth + 1) for key, item in value.items()}
    return [redact(item, depth=depth + 1) for item in value]


def _text_of(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)


def redact_field(name: str, value: Any, *, depth: int = 0) -> Any:
    """
    Return a field's value without secrets; a field *named* like a secret is masked whole.

    Except for an agent token, which keeps its public id: that tells an operator which one was refused.
    """
    if value is None or isinstance(value, bool | int | float) or not _SECRET_FIELD.match(name):
        return redact(value, depth=depth)
    token = _AGENT_TOKEN.fullmatch(value) if isinstance(value, str) else None
    return f"jb_{token[1]}_{MASK}" if token else MASK


def redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor; put it last before the renderer, after tracebacks have become text."""
    for name, value in event.items():
        if not name.startswith("_"):  # structlog's own book-keeping (_record, _from_structlog)
            event[name] = redact_field(name, value)
    return event
