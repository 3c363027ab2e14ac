"""``jetbridge dev``: the development stack from the command line."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    """Run ``jetbridge dev demo``."""
    from jetbridge.devstack import demo  # noqa: PLC0415 - the command's own imports only when it is chosen

    return demo.main(argv)
