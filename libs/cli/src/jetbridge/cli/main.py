"""
Finds subcommands by entry point, so that each image offers exactly what it installed.

A package registers ``name = "package.module:function"`` in the group ``jetbridge.commands``; the
function takes the arguments after the name and returns the exit code. Only the chosen one is
imported: ``jetbridge --help`` must not cost the seconds that importing Airflow does. A command's line
in the help is therefore the first line of its module's docstring, read from the file.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

GROUP = "jetbridge.commands"
USAGE_ERROR = 2
"""Exit code of a command line that names no command, as of most Unix tools."""

_INTERRUPTED = 130
_MAX_SUGGESTIONS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run(arguments, installed_commands())


def installed_commands() -> dict[str, EntryPoint]:
    """Return every registered command by name, sorted."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def run(arguments: list[str], commands: Mapping[str, EntryPoint]) -> int:
    """Dispatch to one of ``commands``, or explain."""
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_overview(commands))  # noqa: T201 - a command line speaks through stdout
        return 0
    name, *rest = arguments
    if name not in commands:
        print(_unknown(name, commands), file=sys.stderr)  # noqa: T201
        return USAGE_ERROR
    command: Callable[[list[str]], int] = commands[name].load()
    try:
        return command(rest)
    except KeyboardInterrupt:
        return _INTERRUPTED  # 128 + SIGINT, and no stack trace: the person asked for it


def _overview(commands: Mapping[str, EntryPoint]) -> str:
    if not commands:
        return "usage: jetbridge COMMAND …\n\nNo commands are installed in this environment."
    width = max(len(name) for name in commands)
    lines = [f"  {name:<{width}}  {_summary(entry)}".rstrip() for name, entry in commands.items()]
    footer = "`jetbridge COMMAND --help` explains one of them."
    return "\n".join(["usage: jetbridge COMMAND …", "", "Commands installed here:", *lines, "", footer])


def _unknown(name: str, commands: Mapping[str, EntryPoint]) -> str:
    near = get_close_matches(name, commands, n=_MAX_SUGGESTIONS, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"installed here: {', '.join(commands) or 'none'}"
    return f"jetbridge: there is no command {name!r}; {hint}"


def _summary(entry: EntryPoint) -> str:
    """Return the first line of the docstring of the command's module, without importing the module."""
    path = _source_of(entry.module)
    if path is None:
        return ""
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return ""  # it cannot be described, but may still be run, which tells the error
    first_line = (docstring or "").strip().partition("\n")[0]
    return first_line.removeprefix(f"``jetbridge {entry.name}``").lstrip(": ").replace("``", "")


def _source_of(module: str) -> Path | None:
    """
    Return the source file of a module.

    ``find_spec`` imports the packages above the module, which here are docstrings only; the module
    itself, which imports what its command needs, stays out.
    """
    try:
        spec = util.find_spec(module)
    except ImportError:
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
