"""``jetbridge boundary``: what crossed the boundary, and whether the record of it is whole."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jetbridge.bus.audit_log import Head, Row, Totals, Verifier, read_audit
from jetbridge.bus.connection import Bus, open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings
from jetbridge.cli.output import answer, note

BROKEN_EXIT_CODE = 3
"""``verify`` ends with this when a record was changed, removed or moved."""

_AGO = re.compile(r"(\d{1,6})(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_COLUMNS = ("class", "outcome", "agent", "site", "operation")

Command = Callable[[argparse.Namespace, Bus], Awaitable[int]]


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(arguments))
    except (BusError, OSError, ValueError) as exc:
        note(f"jetbridge boundary {arguments.command}: {exc}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jetbridge boundary", description="The audit of what crosses.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="what crossed, was masked, sealed or refused, and how often")
    report.add_argument("--since", type=_moment, help="a time (ISO 8601, UTC without a zone) or 30m, 12h, 7d")
    report.add_argument("--site", help="of this site only; '' for agents without one")
    report.add_argument("--json", action="store_true", help="as a JSON array, for scripts")
    report.set_defaults(run=_report)
    verify = commands.add_parser(
        "verify", help=f"check the chains of records; exits {BROKEN_EXIT_CODE} when one is broken"
    )
    verify.add_argument(
        "--heads",
        type=Path,
        help="file with the heads of all chains: what it says must still be there, then it is brought up to "
        "date. Keep it where nobody can write who can write to NATS: without it, records cut off at the end "
        "of a chain are not noticed",
    )
    verify.set_defaults(run=_verify)
    return parser


async def _run(arguments: argparse.Namespace) -> int:
    async with open_bus(BusSettings(), "jetbridge-boundary") as bus:
        run: Command = arguments.run
        return await run(arguments, bus)


async def _report(arguments: argparse.Namespace, bus: Bus) -> int:
    totals = Totals(arguments.site)
    async for entry in read_audit(bus, arguments.since):
        totals.take(entry)
    rows = totals.rows()
    if arguments.json:
        named = [
            dict(zip(_COLUMNS, row, strict=True)) | {"count": count, "bytes": size}
            for row, (count, size) in rows.items()
        ]
        answer(json.dumps(named, indent=2))
    else:
        answer(_table(rows) if rows else "nothing was counted")
    return 0


async def _verify(arguments: argparse.Namespace, bus: Bus) -> int:
    verifier, records = Verifier(_read_heads(arguments.heads)), 0
    async for entry in read_audit(bus):
        verifier.take(entry)
        records += 1
    problems = verifier.finish(datetime.now(UTC))
    for name, chain in sorted(verifier.chains.items()):
        end = "ended in order" if chain.closed else "is running, or was killed and lacks what it last counted"
        answer(f"{name}: records {chain.first} to {chain.sequence}, head {chain.head}, {end}")
    if problems:
        answer("\n".join(f"BROKEN {problem}" for problem in problems))
        return BROKEN_EXIT_CODE
    if arguments.heads:
        heads = {name: [chain.sequence, chain.head] for name, chain in verifier.chains.items()}
        arguments.heads.write_text(json.dumps(heads, indent=1) + "\n")
    answer(f"{records} records in {len(verifier.chains)} chains, all whole")
    return 0


def _read_heads(file: Path | None) -> dict[str, Head]:
    if file is None or not file.exists():
        return {}
    return {
        name: (int(sequence), str(head)) for name, (sequence, head) in json.loads(file.read_text()).items()
    }


def _table(rows: dict[Row, tuple[int, int]]) -> str:
    lines = [
        tuple(column.upper() for column in (*_COLUMNS, "count", "bytes")),
        *((*row, str(count), str(size)) for row, (count, size) in rows.items()),
    ]
    widths = [max(len(line[number]) for line in lines) for number in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number >= len(_COLUMNS) else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _moment(text: str) -> datetime:
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no time and no age such as 30m, 12h or 7d") from exc
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
