"""``jetbridge dev``: the development stack from the command line."""

from __future__ import annotations

import sys

USAGE = (
    "usage: jetbridge dev demo [--once] | jetbridge dev compat [--only PATTERN] | "
    "jetbridge dev trace [--task TASK] [--into DOCUMENT]"
)


def main(argv: list[str]) -> int:
    """Run ``jetbridge dev demo``, ``jetbridge dev compat`` or ``jetbridge dev trace``."""
    if argv[:1] not in (["demo"], ["compat"], ["trace"]):
        print(USAGE, file=sys.stdout if "--help" in argv or "-h" in argv else sys.stderr)
        return 0 if "--help" in argv or "-h" in argv else 2
    # Not at the top: these load everything, and the usage line needs nothing.
    if argv[0] == "compat":
        from jetbridge.devstack.compat import command  # noqa: PLC0415

        return command.main(argv[1:])
    from jetbridge.devstack import demo, trace_demo  # noqa: PLC0415

    return demo.main(argv[1:]) if argv[0] == "demo" else trace_demo.main(argv[1:])
