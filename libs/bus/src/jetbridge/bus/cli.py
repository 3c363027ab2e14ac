"""``jetbridge bus apply`` and ``jetbridge bus diff``."""

from __future__ import annotations

import argparse
import asyncio
import sys

from jetbridge.bus.apply import Difference, apply, diff
from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings

DRIFT_EXIT_CODE = 3
"""``diff`` ends with this when it found differences, so that scripts can tell them from failures."""


def main(argv: list[str]) -> int:
    """Run one bus command and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="jetbridge bus", description="Streams and buckets in NATS JetStream."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("apply", help="create or change streams and buckets as declared; safe to repeat")
    commands.add_parser("diff", help=f"show what differs; exits {DRIFT_EXIT_CODE} when something does")
    command = parser.parse_args(argv).command
    try:
        return asyncio.run(_run(command, BusSettings()))
    except BusError as exc:
        print(f"jetbridge bus {command}: {exc}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 1


async def _run(command: str, settings: BusSettings) -> int:
    async with open_bus(settings, "jetbridge-bus") as bus:
        if command == "apply":
            _show(await apply(bus, settings.replicas), nothing="nothing to change", prefix="changed: ")
            return 0
        differences = await diff(bus, settings.replicas)
        _show(differences, nothing="as declared", prefix="")
        return DRIFT_EXIT_CODE if differences else 0


def _show(differences: list[Difference], *, nothing: str, prefix: str) -> None:
    for difference in differences:
        print(f"{prefix}{difference}")  # noqa: T201 - a command's answer
    if not differences:
        print(nothing)  # noqa: T201 - a command's answer
