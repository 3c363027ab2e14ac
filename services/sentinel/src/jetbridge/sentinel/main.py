"""``jetbridge sentinel``: watch the health of agents, on the plane or at a site."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

ROLES = {
    "plane": "on the orchestration plane: turns silence of agents into verdicts",
    "site": "at a site: sees its agents from outside, says at once when one is gone",
    "status": "what the sentinel of this site sees, to read",
}
_MODULES = {
    "plane": "jetbridge.sentinel.plane_main",
    "site": "jetbridge.sentinel.site.main",
    "status": "jetbridge.sentinel.site.status",
}
USAGE_ERROR = 2


def main(argv: list[str]) -> int:
    """Run the role that ``argv`` begins with; each image has installed what one of them needs."""
    role, *rest = argv or [""]
    if role in {"-h", "--help"}:
        print(_help())  # noqa: T201 - a command's answer
        return 0
    if role not in _MODULES:
        print(_help(), file=sys.stderr)  # noqa: T201
        return USAGE_ERROR
    try:
        run: Callable[[list[str]], int] = import_module(_MODULES[role]).main
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("jetbridge.sentinel"):
            raise
        extra = "plane" if role == "plane" else "site"
        print(  # noqa: T201
            f"jetbridge sentinel {role}: {error.name} is not installed here; "
            f"install jetbridge-sentinel[{extra}]",
            file=sys.stderr,
        )
        return USAGE_ERROR
    return run(rest)


def _help() -> str:
    lines = [f"  {role:<7} {text}" for role, text in ROLES.items()]
    return "\n".join(["usage: jetbridge sentinel ROLE …", "", *lines])
