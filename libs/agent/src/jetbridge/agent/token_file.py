"""Reading the agent token from its file. It is read anew for each registration, so it can be rotated."""

from __future__ import annotations

import stat
from pathlib import Path

import structlog

from jetbridge.agent.errors import TokenFileError
from jetbridge.contracts.ids import AgentToken, InvalidIdError

log = structlog.get_logger(__name__)


def read_token(path: Path) -> AgentToken:
    """Return the token in ``path``; raises :class:`TokenFileError`, whose text never holds the content."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise TokenFileError(f"the token file {path} cannot be read: {reason}") from error
    try:
        return AgentToken.parse(text.strip())
    except InvalidIdError as error:
        raise TokenFileError(
            f"the token file {path} holds no agent token: {error}; make one with 'jetbridge token create'"
        ) from error


def warn_about_permissions(path: Path) -> None:
    """Log a warning when others than the file's owner may read the token."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        log.warning(
            "token file can be read by others; run: chmod 600 on it", path=str(path), mode=f"{mode:04o}"
        )
