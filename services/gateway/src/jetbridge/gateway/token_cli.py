"""``jetbridge token``: make, list and revoke the tokens agents register with."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tokens import DEFAULT_LIFE, TokenStore
from jetbridge.contracts.records import TokenRecord

_MAX_NAME = 128
_MAX_DAYS = 3650
_TOKEN_ID = re.compile(r"[0-9a-z]{12}")

Command = Callable[[argparse.Namespace, TokenStore], Awaitable[int]]


def main(argv: list[str]) -> int:
    """Run one token command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(arguments))
    except BusError as exc:
        _note(f"jetbridge token {arguments.command}: {exc}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jetbridge token", description="The tokens agents register with. They are kept as hashes."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make a token and print it, once, on stdout")
    create.add_argument("--name", required=True, type=_name, help="for people: whose token it is")
    create.add_argument(
        "--expires-in-days", type=_days, default=float(DEFAULT_LIFE.days), help="default: %(default)g"
    )
    create.set_defaults(run=_create)
    listing = commands.add_parser("list", help="show all tokens, without their secrets")
    listing.add_argument("--json", action="store_true", help="as a JSON array, for scripts")
    listing.set_defaults(run=_list)
    revoke = commands.add_parser("revoke", help="end a token and everything registered with it, now")
    revoke.add_argument("id", type=_id, metavar="ID", help="the token's id, as 'list' shows it")
    revoke.set_defaults(run=_revoke)
    return parser


async def _run(arguments: argparse.Namespace) -> int:
    async with open_bus(BusSettings(), "jetbridge-token") as bus:
        run: Command = arguments.run
        return await run(arguments, await TokenStore.open(bus))


async def _create(arguments: argparse.Namespace, store: TokenStore) -> int:
    token, record = await store.create(arguments.name, timedelta(days=arguments.expires_in_days))
    _note(f"token {record.id} for {record.name!r}, valid until {_time(record.expires_at)}.")
    _note("It is shown this once. Give it to the agent in a file: jetbridge worker --token-file FILE")
    _answer(str(token))
    return 0


async def _list(arguments: argparse.Namespace, store: TokenStore) -> int:
    now = datetime.now(UTC)
    rows = [_row(record, now) for record in await store.list()]
    if arguments.json:
        _answer(json.dumps(rows, indent=2))
    elif rows:
        _answer(_table(rows))
    else:
        _note("There are no tokens; 'jetbridge token create' makes one.")
    return 0


async def _revoke(arguments: argparse.Namespace, store: TokenStore) -> int:
    before = next((record for record in await store.list() if record.id == arguments.id), None)
    record = await store.revoke(arguments.id)
    if record is None or record.revoked_at is None:
        _note(f"jetbridge token revoke: there is no token {arguments.id}; see 'jetbridge token list'")
        return 1
    already = "was already" if before and before.revoked_at else "is"
    _note(f"token {record.id} for {record.name!r} {already} revoked ({_time(record.revoked_at)}).")
    return 0


def _row(record: TokenRecord, now: datetime) -> dict[str, str]:
    return {
        "id": record.id,
        "name": record.name,
        "state": _state(record, now),
        "created": _time(record.created_at),
        "expires": _time(record.expires_at),
        "revoked": _time(record.revoked_at) if record.revoked_at else "",
    }


def _state(record: TokenRecord, now: datetime) -> str:
    if record.revoked_at:
        return "revoked"
    return "valid" if now < record.expires_at else "expired"


def _table(rows: list[dict[str, str]]) -> str:
    columns = list(rows[0])
    lines = [[column.upper() for column in columns], *([row[column] for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(text: str) -> str:
    if not text.strip() or len(text) > _MAX_NAME or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {_MAX_NAME} printable characters")
    return text


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= _MAX_DAYS:
        raise argparse.ArgumentTypeError(f"a life is more than 0 and at most {_MAX_DAYS} days")
    return days


def _id(text: str) -> str:
    if not _TOKEN_ID.fullmatch(text):
        # The text is not repeated: it may be a whole token, pasted by mistake.
        raise argparse.ArgumentTypeError("a token's id has 12 lower-case characters, the part after 'jb_'")
    return text


def _answer(text: str) -> None:
    print(text)  # noqa: T201 - the command's answer


def _note(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - a note to the person, kept out of the answer
