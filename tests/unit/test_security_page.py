"""The security page names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_named_test_exists(file, test):
    path = ROOT / file
    assert path.is_file()
    if test:
        assert re.search(rf"^ *(?:async )?def {test}\(", path.read_text(), re.MULTILINE)


def test_every_row_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "shown by" not in line]
    tables = PAGE.split("## Identity", 1)[1]
    threats = [line for line in rows if line in tables]
    assert len(threats) > 20
    assert [line for line in threats if "`tests/" not in line] == []
