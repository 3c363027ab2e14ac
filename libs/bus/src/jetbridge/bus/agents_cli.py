"""``jetbridge agents``: see agents, take them out of service, bring them back."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jetbridge.bus.connection import Bus, open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.fleet import AgentState, AgentView, read_fleet
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.settings import BusSettings
from jetbridge.cli.output import answer, moment, note
from jetbridge.cli.tables import table

NOTHING_SELECTED = 3
"""Exit code when no agent has the name, or fits the selection."""

STILL_THERE = 4
"""Exit code of ``drain --wait`` when an agent has not ended in time."""

DEFAULT_DEADLINE = timedelta(minutes=10)
"""As long as a worker that gets SIGTERM waits for its tasks, unless it was told otherwise."""

WAIT_MARGIN = timedelta(minutes=2)
"""After the deadline: for a heartbeat, for tasks to be killed and for reports; and for a lease to end."""

_LOOK_SECONDS = 1.0
_MAX_REASON = 256
_ENDED = frozenset({AgentState.LOST, AgentState.GONE})
_UNITS = {"s": 1, "m": 60, "h": 3600}

Command = Callable[[argparse.Namespace, Bus], Awaitable[int]]


def main(argv: list[str]) -> int:
    """Run one command about agents; returns the exit code."""
    arguments = parser().parse_args(argv)
    try:
        return asyncio.run(_run(arguments))
    except BusError as exc:
        note(f"jetbridge agents {arguments.command}: {exc}")
        return 1


def parser() -> argparse.ArgumentParser:
    """Return what understands the words after ``jetbridge agents``."""
    words = argparse.ArgumentParser(
        prog="jetbridge agents",
        description="Agents and whether they take work. Runs on the plane. "
        f"Exit codes: 0 it is so now, 1 NATS failed, 2 wrong usage, {NOTHING_SELECTED} no such agent, "
        f"{STILL_THERE} waited in vain.",
    )
    commands = words.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = _command(commands, "list", _list, "show agents and their state")
    listing.add_argument("--all", action="store_true", help="also those that are gone for good")
    listing.add_argument("--json", action="store_true", help="as a JSON array, for scripts")
    show = _command(commands, "show", _show, "show everything about agents")
    show.add_argument("--json", action="store_true", help="as a JSON array, for scripts")
    cordon = _command(commands, "cordon", _cordon, "offer no new work; what runs goes on")
    _command(commands, "uncordon", _uncordon, "offer work again; withdraws a drain that did not begin")
    drain = _command(commands, "drain", _drain, "cordon, let tasks finish or hand them over, then stop")
    for change in (cordon, drain):
        change.add_argument("--reason", type=_reason, default="", help="for people who look at the agent")
    when = drain.add_mutually_exclusive_group()
    when.add_argument(
        "--deadline",
        type=_duration,
        default=DEFAULT_DEADLINE,
        metavar="TIME",
        help="hand over what still runs then: 90s, 10m, 2h; default: 10m",
    )
    when.add_argument(
        "--hand-over",
        action="store_true",
        help="hand over at once what runs: it is killed, without on_kill, and begins again elsewhere",
    )
    drain.add_argument("--wait", action="store_true", help="return when the agents have ended")
    return words


def _command(commands: Any, name: str, run: Command, what: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    command.add_argument("names", nargs="*", metavar="NAME", help="names of agents")
    command.add_argument("--queue", help="agents that serve this queue")
    command.add_argument("--site", help="agents of this site")
    command.set_defaults(run=run)
    return command


async def _run(arguments: argparse.Namespace) -> int:
    must_select = arguments.command != "list"
    if must_select and not arguments.names and arguments.queue is None and arguments.site is None:
        note(f"jetbridge agents {arguments.command}: name agents, or select them with --queue or --site")
        return 2
    async with open_bus(BusSettings(), "jetbridge-agents") as bus:
        run: Command = arguments.run
        return await run(arguments, bus)


async def _select(arguments: argparse.Namespace, bus: Bus) -> list[AgentView]:
    """Return the agents that fit everything that was said, and say which names there are not."""
    fleet = await read_fleet(bus)
    known = {view.agent.name for view in fleet}
    for name in arguments.names:
        if name not in known:
            note(f"there is no agent {name!r}; see 'jetbridge agents list --all'")
    return [
        view
        for view in fleet
        if (not arguments.names or view.agent.name in arguments.names)
        and (arguments.queue is None or arguments.queue in view.agent.queues)
        and (arguments.site is None or arguments.site == view.agent.site)
    ]


def _selected_code(arguments: argparse.Namespace, views: list[AgentView]) -> int:
    """Return the exit code after a command that did what it could for ``views``."""
    missing = set(arguments.names) - {view.agent.name for view in views}
    if not views:
        note("no agent was selected")
    return NOTHING_SELECTED if missing or not views else 0


# -- looking


async def _list(arguments: argparse.Namespace, bus: Bus) -> int:
    views = await _select(arguments, bus)
    shown = [view for view in views if arguments.all or arguments.names or view.state is not AgentState.GONE]
    if arguments.json:
        answer(json.dumps([_facts(view) for view in shown], indent=2))
    elif shown:
        answer(table([_row(view) for view in shown]))
    else:
        note("no agents" if arguments.all else "no agents; '--all' shows those that are gone, too")
    return _selected_code(arguments, views) if arguments.names else 0


async def _show(arguments: argparse.Namespace, bus: Bus) -> int:
    views = await _select(arguments, bus)
    if arguments.json:
        answer(json.dumps([_facts(view) for view in views], indent=2))
    else:
        for view in views:
            answer("\n".join(f"{name:<13}{_text(value)}".rstrip() for name, value in _facts(view).items()))
            answer("")
    return _selected_code(arguments, views)


def _row(view: AgentView) -> dict[str, str]:
    agent = view.agent
    return {
        "name": agent.name,
        "role": agent.role,
        "site": agent.site or "-",
        "state": view.state.value,
        "queues": ",".join(agent.queues) or "-",
        "leases": f"{len(view.leases)}/{agent.slots}",
        "why": view.why or "",
    }


def _facts(view: AgentView) -> dict[str, Any]:
    agent, health, order = view.agent, view.health, view.order
    return {
        "name": agent.name,
        "role": agent.role,
        "site": agent.site,
        "state": view.state.value,
        "why": view.why,
        "since": moment(health.since) if health else "",
        "queues": list(agent.queues),
        "slots": agent.slots,
        "leases": list(view.leases),
        "labels": agent.labels,
        "instance": agent.instance,
        "registered": moment(agent.registered_at),
        "version": agent.software_version,
        "logs": agent.log_store,
        "attested": bool(health and health.attested),
        "cordoned": moment(order.since) if order else "",
        "hand_over_at": moment(order.drain.hand_over_at) if order and order.drain else "",
    }


# -- changing


async def _cordon(arguments: argparse.Namespace, bus: Bus) -> int:
    views, store = await _select(arguments, bus), await OrderStore.open(bus)
    for view in views:
        new = await store.cordon(view.agent.name, arguments.reason)
        running = f"; {len(view.leases)} leases go on" if view.leases else ""
        answer(f"{view.agent.name}: {'cordoned' if new else 'was cordoned already'}{running}")
    return _selected_code(arguments, views)


async def _uncordon(arguments: argparse.Namespace, bus: Bus) -> int:
    views, store = await _select(arguments, bus), await OrderStore.open(bus)
    for view in views:
        changed = await store.uncordon(view.agent.name)
        text = "takes work again" if changed else "was not cordoned"
        if changed and view.state is AgentState.DRAINING:
            text = "its name takes work again; a process that has begun to drain still ends"
        answer(f"{view.agent.name}: {text}")
    return _selected_code(arguments, views)


async def _drain(arguments: argparse.Namespace, bus: Bus) -> int:
    views, store = await _select(arguments, bus), await OrderStore.open(bus)
    hand_over_at = datetime.now(UTC) + (timedelta() if arguments.hand_over else arguments.deadline)
    latest = hand_over_at
    for view in views:
        agent = view.agent
        order = await store.drain(agent.name, agent.instance, hand_over_at, arguments.reason)
        at = order.drain.hand_over_at if order.drain else hand_over_at
        latest = max(latest, at)
        if view.state in _ENDED:
            answer(f"{agent.name}: has ended already ({view.state}); its name is cordoned")
        else:
            answer(f"{agent.name}: drains {len(view.leases)} leases, hands over at {moment(at)}")
    if arguments.wait and views and not await _await_ends(bus, views, latest + WAIT_MARGIN):
        return STILL_THERE
    return _selected_code(arguments, views)


async def _await_ends(bus: Bus, views: list[AgentView], until: datetime) -> bool:
    """Wait until each process has ended, or another took its place."""
    waiting = {view.agent.name: view.agent.instance for view in views}
    while True:
        now = {view.agent.name: view for view in await read_fleet(bus)}
        for name, instance in list(waiting.items()):
            view = now.get(name)
            if view is None or view.agent.instance != instance or view.state in _ENDED:
                del waiting[name]
                answer(f"{name}: ended")
        if not waiting:
            return True
        if datetime.now(UTC) > until:
            note(f"still there: {', '.join(sorted(waiting))}")
            return False
        await asyncio.sleep(_LOOK_SECONDS)


# -- words


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,7})([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError("a time is a number of seconds, or for example 90s, 10m, 2h")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2] or "s"])


def _reason(text: str) -> str:
    if len(text) > _MAX_REASON or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a reason has at most {_MAX_REASON} printable characters")
    return text
