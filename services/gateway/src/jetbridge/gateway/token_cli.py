"""``jetbridge token``: make, list, rotate and revoke the tokens agents register with."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import get_args

import msgspec

from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.token_admin import (
    MAX_DAYS,
    MAX_OVERLAP,
    TokenView,
    check_certificate,
    check_name,
    describe,
    is_token_id,
    parse_duration,
    views,
)
from jetbridge.bus.token_uses import TokenUseStore
from jetbridge.bus.tokens import DEFAULT_LIFE, DEFAULT_OVERLAP, TokenStore
from jetbridge.cli.output import answer, moment, note
from jetbridge.cli.tables import table
from jetbridge.contracts.api import Role
from jetbridge.contracts.scopes import MAX_SCOPES, TokenScopes, networks


@dataclass(frozen=True)
class _Stores:
    tokens: TokenStore
    uses: TokenUseStore


Command = Callable[[argparse.Namespace, _Stores], Awaitable[int]]


def main(argv: list[str]) -> int:
    """Run one token command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(arguments))
    except BusError as exc:
        note(f"jetbridge token {arguments.command}: {exc}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jetbridge token", description="The tokens agents register with. They are kept as hashes."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_create(commands.add_parser("create", help="make a token and print it, once, on stdout"))
    listing = commands.add_parser("list", help="show all tokens, without their secrets")
    listing.add_argument("--json", action="store_true", help="as a JSON array, for scripts")
    listing.set_defaults(run=_list)
    rotate = commands.add_parser(
        "rotate", help="give a token a new secret and a new life, and print it; the old one stays for a while"
    )
    _add_id(rotate)
    rotate.add_argument(
        "--overlap",
        type=_overlap,
        default=DEFAULT_OVERLAP,
        metavar="TIME",
        help="how long the secret before is still taken, for example 15m, 24h or 0s; default: 24h",
    )
    _add_life(rotate)
    rotate.set_defaults(run=_rotate)
    revoke = commands.add_parser("revoke", help="end a token and everything registered with it, now")
    _add_id(revoke)
    revoke.set_defaults(run=_revoke)
    return parser


def _add_create(create: argparse.ArgumentParser) -> None:
    create.add_argument("--name", required=True, type=_name, help="for people: whose token it is")
    _add_life(create)
    create.add_argument(
        "--roles", type=_roles, default=(), metavar="ROLE,…", help=f"only for: {', '.join(get_args(Role))}"
    )
    for scope in ("sites", "queues", "bundles"):
        create.add_argument(
            f"--{scope}",
            type=_names,
            default=(),
            metavar="NAME,…",
            help=f"only for these {scope}; team-* for all that begin so",
        )
    create.add_argument(
        "--cidrs",
        type=_cidrs,
        default=(),
        metavar="NET,…",
        help="only from these networks, for example 10.0.0.0/8",
    )
    create.add_argument(
        "--certificate",
        type=_certificate,
        default="",
        metavar="SHA256",
        help="only with this client certificate: openssl x509 -noout -fingerprint -sha256",
    )
    create.set_defaults(run=_create)


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=_id, metavar="ID", help="the token's id, as 'list' shows it")


def _add_life(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expires-in-days", type=_days, default=float(DEFAULT_LIFE.days), help="default: %(default)g"
    )


async def _run(arguments: argparse.Namespace) -> int:
    async with open_bus(BusSettings(), "jetbridge-token") as bus:
        run: Command = arguments.run
        return await run(arguments, _Stores(await TokenStore.open(bus), await TokenUseStore.open(bus)))


async def _create(arguments: argparse.Namespace, stores: _Stores) -> int:
    scopes = TokenScopes(
        roles=arguments.roles,
        sites=arguments.sites,
        queues=arguments.queues,
        bundles=arguments.bundles,
        cidrs=arguments.cidrs,
    )
    life = timedelta(days=arguments.expires_in_days)
    token, record = await stores.tokens.create(arguments.name, life, scopes, arguments.certificate)
    note(f"token {record.id} for {record.name!r}, valid until {moment(record.expires_at)}.")
    note(f"It may be used for: {describe(scopes)}.")
    note("It is shown this once. Give it to the agent in a file: jetbridge worker --token-file FILE")
    answer(str(token))
    return 0


async def _list(arguments: argparse.Namespace, stores: _Stores) -> int:
    found = await views(stores.tokens, stores.uses)
    if arguments.json:
        answer(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    elif found:
        answer(table([_row(view) for view in found]))
    else:
        note("There are no tokens; 'jetbridge token create' makes one.")
    return 0


async def _rotate(arguments: argparse.Namespace, stores: _Stores) -> int:
    life = timedelta(days=arguments.expires_in_days)
    rotated = await stores.tokens.rotate(arguments.id, arguments.overlap, life)
    if rotated is None:
        note(
            f"jetbridge token rotate: there is no token {arguments.id} that could be rotated; a revoked one "
            "cannot. See 'jetbridge token list'"
        )
        return 1
    token, record = rotated
    note(f"token {record.id} for {record.name!r} has a new secret, valid until {moment(record.expires_at)}.")
    if record.previous_until and datetime.now(UTC) < record.previous_until:
        note(f"The secret before is taken until {moment(record.previous_until)}.")
    note(
        "It is shown this once. Agents read their token file at each registration, so replacing it is enough."
    )
    answer(str(token))
    return 0


async def _revoke(arguments: argparse.Namespace, stores: _Stores) -> int:
    before = await stores.tokens.get(arguments.id)
    record = await stores.tokens.revoke(arguments.id)
    if record is None or record.revoked_at is None:
        note(f"jetbridge token revoke: there is no token {arguments.id}; see 'jetbridge token list'")
        return 1
    already = "was already" if before and before.revoked_at else "is"
    note(f"token {record.id} for {record.name!r} {already} revoked ({moment(record.revoked_at)}).")
    return 0


def _row(view: TokenView) -> dict[str, str]:
    return {
        "id": view.id,
        "name": view.name,
        "state": view.state,
        "created": moment(view.created_at),
        "expires": moment(view.expires_at),
        "used": moment(view.last_used_at) if view.last_used_at else "",
        "from": view.last_used_from or "",
        "for": describe(view.scopes),
    }


def _name(text: str) -> str:
    try:
        return check_name(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"a life is more than 0 and at most {MAX_DAYS:g} days")
    return days


def _overlap(text: str) -> timedelta:
    try:
        overlap = parse_duration(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if overlap > MAX_OVERLAP:
        raise argparse.ArgumentTypeError(f"an overlap is at most {MAX_OVERLAP.days} days")
    return overlap


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part for raw in text.split(",") if (part := raw.strip())))
    if not 0 < len(names) <= MAX_SCOPES or any(len(name) > MAX_SCOPES for name in names):
        raise argparse.ArgumentTypeError("give one or more names, separated by commas")
    return names


def _roles(text: str) -> tuple[str, ...]:
    names = _names(text)
    if unknown := [name for name in names if name not in get_args(Role)]:
        raise argparse.ArgumentTypeError(
            f"there is no role {unknown[0]!r}; there are {', '.join(get_args(Role))}"
        )
    return names


def _cidrs(text: str) -> tuple[str, ...]:
    names = _names(text)
    try:
        networks(names)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return names


def _certificate(text: str) -> str:
    try:
        return check_certificate(text.rpartition("=")[2])
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _id(text: str) -> str:
    if not is_token_id(text):
        # The text is not repeated: it may be a whole token, pasted by mistake.
        raise argparse.ArgumentTypeError("a token's id has 12 lower-case characters, the part after 'jb_'")
    return text
