"""What a command says: its answer on stdout, for scripts too, and notes to the person on stderr."""

from __future__ import annotations

import sys
from datetime import UTC, datetime


def answer(text: str) -> None:
    """Print what was asked for."""
    print(text)  # noqa: T201 - the command's answer


def note(text: str) -> None:
    """Tell the person something that is not part of the answer."""
    print(text, file=sys.stderr)  # noqa: T201 - kept out of the answer


def moment(when: datetime) -> str:
    """Return a time in UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
