from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from jetbridge.agent.errors import ExitCode, TokenFileError
from jetbridge.agent.token_file import read_token, warn_about_permissions
from jetbridge.contracts.ids import AgentToken


def test_a_token_with_a_trailing_newline(tmp_path):
    token = AgentToken.generate()
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    assert read_token(path) == token


@pytest.mark.parametrize("content", [b"", b"hunter2", b"jb_abc_hunter2", b"\xff\xfe"])
def test_content_that_is_no_token_is_never_quoted(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenFileError) as error:
        read_token(path)
    assert str(path) in str(error.value)
    assert "hunter2" not in str(error.value)
    assert error.value.exit_code is ExitCode.USAGE


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TokenFileError, match="No such file"):
        read_token(tmp_path / "nothing")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_others_who_may_read_it_are_warned_about(tmp_path, mode, warned):
    path = tmp_path / "token"
    path.touch()
    path.chmod(mode)
    with capture_logs() as logs:
        warn_about_permissions(path)
    assert [entry["mode"] for entry in logs] == ([f"{mode:04o}"] if warned else [])
