"""``jetbridge dev``: the development stack from the command line."""

from __future__ import annotations

import sys

USAGE = "usage: jetbridge dev demo [--once]"


def main(argv: list[str]) -> int:
    """Run ``jetbridge dev demo``."""
    if argv[:1] != ["demo"]:
        print(USAGE, file=sys.stdout if "--help" in argv or "-h" in argv else sys.stderr)
        return 0 if "--help" in argv or "-h" in argv else 2
    from jetbridge.devstack import demo  # noqa: PLC0415 - loads everything; the usage line needs nothing

    return demo.main(argv[1:])
