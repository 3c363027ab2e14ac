"""``jetbridge sentinel status``: what the sentinel on this machine sees, to read."""

from __future__ import annotations

import argparse
import sys
from urllib.parse import urlsplit

import httpx
import msgspec

from jetbridge.cli.tables import table
from jetbridge.sentinel.site.pages import Status

UNWELL = 1
UNREACHABLE = 3
DEFAULT_URL = "http://127.0.0.1:9465"
_SECONDS = 5.0


def main(argv: list[str]) -> int:
    """Print the status; returns 0 when all is well, 1 when something is not, 3 without an answer."""
    parser = argparse.ArgumentParser(
        prog="jetbridge sentinel status",
        description="What the sentinel of this site sees. "
        f"Exit codes: 0 all is well, {UNWELL} something is not, {UNREACHABLE} the sentinel does not answer.",
    )
    parser.add_argument("--url", default=DEFAULT_URL, help="address of the sentinel; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")
    arguments = parser.parse_args(argv)
    try:
        status = _ask(arguments.url)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
        where = urlsplit(arguments.url).netloc
        print(  # noqa: T201 - a command's answer
            f"jetbridge sentinel status: no sentinel answers at {where} ({type(error).__name__}); "
            "is it running, and is that its --listen-host and --listen-port?",
            file=sys.stderr,
        )
        return UNREACHABLE
    print(msgspec.json.encode(status).decode() if arguments.json else describe(status))  # noqa: T201
    return 0 if status.well else UNWELL


def _ask(url: str) -> Status:
    with httpx.Client(timeout=_SECONDS, trust_env=False) as client:
        answer = client.get(f"{url.rstrip('/')}/status")
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=Status)


def describe(status: Status) -> str:
    """Return a status as people read it: what is wrong comes first."""
    word = "all is well" if status.well else "something is wrong"
    lines = [f"site {status.site}, seen by {status.sentinel}: {word}"]
    rows = [
        {"agent": one.agent, "role": one.role or "-", "state": one.state, "why": one.detail}
        for one in status.agents
    ]
    if rows:
        lines += ["", table(rows)]
    checks = [
        {"check": one.name, "answers": "yes" if one.ok else "NO", "why": one.detail} for one in status.checks
    ]
    if checks:
        lines += ["", table(checks)]
    return "\n".join(lines)
