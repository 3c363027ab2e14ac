"""``jetbridge policy``: show, change and compare what a deployment decides."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.kv import Versioned
from jetbridge.bus.policies import PolicyStore
from jetbridge.bus.policy_words import PolicyTextError, apply_words, describe
from jetbridge.bus.settings import BusSettings
from jetbridge.cli.output import answer, note
from jetbridge.contracts.boundary import CLASSES, Handling, Rule, decide
from jetbridge.contracts.ids import InvalidIdError
from jetbridge.contracts.policies import PolicyRecord, boundary_rule, check_scope, failover

DRIFT_EXIT_CODE = 3
"""``diff`` ends with this when something differs, as ``jetbridge bus diff`` does."""

USAGE_EXIT_CODE = 2

Command = Callable[[argparse.Namespace, PolicyStore], Awaitable[int]]


def main(argv: list[str]) -> int:
    """Run one policy command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(arguments))
    except (BusError, PolicyTextError, OSError) as exc:
        note(f"jetbridge policy {arguments.command}: {exc}")
        return USAGE_EXIT_CODE if isinstance(exc, PolicyTextError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jetbridge policy", description="What a deployment, a site or a queue decides."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser("show", help="show all policies, or what holds for one queue")
    show.add_argument("--queue", help="show what holds for this queue, defaults included")
    show.add_argument("--site", default="", help="with --queue: at this site")
    show.add_argument("--json", action="store_true", help="as JSON, which 'diff' and 'set --file' read")
    show.set_defaults(run=_show)
    change = commands.add_parser("set", help="change a policy")
    change.add_argument("scope", nargs="?", type=_scope, help="deployment, site:NAME or queue:NAME")
    change.add_argument(
        "words", nargs="*", metavar="FIELD=VALUE", help="an empty VALUE leaves it to wider scopes"
    )
    change.add_argument("--file", type=Path, help="make all policies those of this file, - for stdin")
    change.set_defaults(run=_set)
    diff = commands.add_parser("diff", help=f"compare with a file; exits {DRIFT_EXIT_CODE} on a difference")
    diff.add_argument("file", type=Path, help="as 'show --json' writes it, - for stdin")
    diff.set_defaults(run=_diff)
    return parser


async def _run(arguments: argparse.Namespace) -> int:
    async with open_bus(BusSettings(), "jetbridge-policy") as bus:
        run: Command = arguments.run
        return await run(arguments, await PolicyStore.open(bus))


async def _show(arguments: argparse.Namespace, store: PolicyStore) -> int:
    records = {record.scope: record for record in await store.list()}
    if arguments.queue:
        effective = failover(records, arguments.queue, arguments.site)
        holds = msgspec.to_builtins(effective) | {"boundary": _boundary(records, arguments)}
        answer(json.dumps(holds, indent=2))
    elif arguments.json:
        answer(json.dumps([_decided(record) for record in records.values()], indent=2))
    elif records:
        answer("\n".join(line for record in records.values() for line in describe(record)))
    else:
        note("There are no policies: the defaults hold. 'jetbridge policy set --help' says how to make one.")
    return 0


def _boundary(records: dict[str, PolicyRecord], arguments: argparse.Namespace) -> dict[str, str]:
    """Return what holds for each class of data that policies decide about, defaults included."""
    decision = decide(lambda data: boundary_rule(records, data, arguments.queue, arguments.site))
    return {
        data.value: (Rule.OPEN if decision.is_open(data) else Rule.CLOSED).value
        for data, rules in CLASSES.items()
        if rules.closed is not Handling.ALWAYS
    }


async def _set(arguments: argparse.Namespace, store: PolicyStore) -> int:
    if (arguments.file is None) == (arguments.scope is None):
        raise PolicyTextError("name a scope and what to change in it, or a --file with all policies")
    if arguments.file is not None:
        return await _set_all(_read(arguments.file), store)
    before = await store.get(arguments.scope)
    old = before.record if before else _empty(arguments.scope)
    await _write(store, before, apply_words(old, arguments.words))
    return 0


async def _set_all(wanted: dict[str, PolicyRecord], store: PolicyStore) -> int:
    for scope in sorted(wanted.keys() | {record.scope for record in await store.list()}):
        before = await store.get(scope)
        old, new = before.record if before else _empty(scope), wanted.get(scope) or _empty(scope)
        if _decided(old) == _decided(new):
            continue
        await _write(store, before, new)
    return 0


async def _write(store: PolicyStore, before: Versioned[PolicyRecord] | None, wanted: PolicyRecord) -> None:
    """Make a scope's policy the wanted one, where an empty one is none, and say what that changed."""
    after = msgspec.structs.replace(wanted, changed_at=datetime.now(UTC), changed_by=_me())
    if not _is_empty(after):
        await store.change(before, after)
    elif before is not None:
        await store.remove(before)
    _say_changes(before.record if before else _empty(after.scope), after)


async def _diff(arguments: argparse.Namespace, store: PolicyStore) -> int:
    wanted, there = _read(arguments.file), {record.scope: record for record in await store.list()}
    lines = [
        line
        for scope in sorted(wanted.keys() | there.keys())
        for line in _changes(there.get(scope) or _empty(scope), wanted.get(scope) or _empty(scope))
    ]
    answer("\n".join(lines) if lines else "as in the file")
    return DRIFT_EXIT_CODE if lines else 0


def _read(path: Path) -> dict[str, PolicyRecord]:
    text = sys.stdin.read() if str(path) == "-" else path.read_text()
    try:
        records = msgspec.json.decode(text, type=list[_Written])
    except msgspec.DecodeError as exc:
        raise PolicyTextError(f"{path} is not a list of policies as 'show --json' writes it: {exc}") from exc
    found: dict[str, PolicyRecord] = {}
    for written in records:
        record = apply_words(
            _empty(_checked(written.scope)),
            [
                *(f"{name}={_text(value)}" for name, value in written.failover.items()),
                *(f"boundary.{name}={rule}" for name, rule in written.boundary.items()),
            ],
        )
        if record.scope in found:
            raise PolicyTextError(f"{path} names {record.scope} twice")
        found[record.scope] = record
    return found


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    """One policy in a file."""

    scope: str
    failover: dict[str, Any] = {}
    boundary: dict[str, str] = {}


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _decided(record: PolicyRecord) -> dict[str, Any]:
    """Return what a policy decides, without who decided it and when."""
    written: dict[str, Any] = msgspec.to_builtins(record)
    return {name: written[name] for name in ("scope", "failover", "boundary") if written.get(name)}


def _changes(before: PolicyRecord, after: PolicyRecord) -> list[str]:
    old, new = describe(before), describe(after)
    return [
        *(f"- {line}" for line in old if line not in new),
        *(f"+ {line}" for line in new if line not in old),
    ]


def _say_changes(before: PolicyRecord, after: PolicyRecord) -> None:
    answer("\n".join(_changes(before, after)) or f"{after.scope}: nothing to change")


def _empty(scope: str) -> PolicyRecord:
    return PolicyRecord(scope=scope, changed_at=datetime.now(UTC))


def _is_empty(record: PolicyRecord) -> bool:
    return not describe(record)


def _scope(text: str) -> str:
    try:
        return check_scope(text)
    except InvalidIdError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _checked(scope: str) -> str:
    try:
        return check_scope(scope)
    except InvalidIdError as exc:
        raise PolicyTextError(str(exc)) from exc


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"
