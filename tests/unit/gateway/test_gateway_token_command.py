"""Mistakes on the command line of ``jetbridge token``: told, and no secret is repeated."""

import pytest

from jetbridge.gateway import token_cli

PASTED = "jb_000000000000_" + "s" * 43


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["forge"],
        ["create"],
        ["create", "--name", " "],
        ["create", "--name", "a\nb"],
        ["create", "--name", "x" * 129],
        ["create", "--name", "a", "--expires-in-days", "0"],
        ["create", "--name", "a", "--expires-in-days", "nan"],
        ["create", "--name", "a", "--expires-in-days", "1e9"],
        ["create", "--name", "a", "--expires-in-days", "soon"],
        ["revoke"],
        ["revoke", PASTED],
        ["revoke", "../tokens"],
    ],
)
def test_mistakes_end_with_2_and_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        token_cli.main(arguments)
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines()[-1].startswith("jetbridge token")
    assert PASTED not in error
