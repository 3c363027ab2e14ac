"""
``jetbridge site-key``: make and change the key with which a site's agents seal what they carry over.

A key is changed in two steps, because the file reaches the agents one after the other: ``add`` puts a new key
behind the old one, where it only opens; ``use``, when every agent has that file, moves it to the front.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jetbridge.sealing.keyring import KeyFileError, new_key, read_keyring


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    change: Callable[[argparse.Namespace], None] = arguments.change
    try:
        change(arguments)
        keyring = read_keyring(arguments.file)
    except (OSError, KeyFileError) as exc:
        _say(f"jetbridge site-key {arguments.command}: {exc}")
        return 1
    _say(f"{arguments.file}: {keyring}, the first one seals")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jetbridge site-key", description="Keys of a site. They never leave it: the plane has none."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, change, text in (
        ("create", _create, "write a file with a new key; never overwrites one"),
        (
            "add",
            _add,
            "put a new key behind the others, where it only opens; then give all agents the file",
        ),
        ("use", _use, "seal with the last key from now on; then give the file to all agents"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("file", type=Path)
        command.set_defaults(change=change, keep=2)
    commands.choices["use"].add_argument(
        "--keep", type=int, default=2, help="keys to keep, the new one included (default: 2)"
    )
    return parser


def _create(arguments: argparse.Namespace) -> None:
    _write(arguments.file, [new_key()])


def _add(arguments: argparse.Namespace) -> None:
    _replace(arguments.file, [*_keys(arguments.file), new_key()])


def _use(arguments: argparse.Namespace) -> None:
    *others, newest = _keys(arguments.file)
    _replace(arguments.file, [newest, *others][: max(1, arguments.keep)])


def _keys(file: Path) -> list[str]:
    read_keyring(file)  # says what is wrong with it
    return [text for line in file.read_text().splitlines() if (text := line.partition("#")[0].strip())]


def _replace(file: Path, keys: list[str]) -> None:
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    _write(beside, keys)
    beside.replace(file)


def _write(file: Path, keys: list[str]) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write("".join(f"{key}\n" for key in keys))


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - a command's answer
