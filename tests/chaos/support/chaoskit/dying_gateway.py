"""
A real gateway that ends, as by SIGKILL, at a named point of the way of an offer, an accept or a report.

Run as ``python dying_gateway.py`` with the environment of a gateway. ``JETBRIDGE_CHAOS_POINT`` names the
point, one of :data:`POINTS`; the file ``JETBRIDGE_CHAOS_TAKEN`` is made by whoever dies there first, so that
its successor and its neighbour live.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

POINTS: dict[str, tuple[str, str]] = {
    "offer: before the record": ("before", "offer"),
    "offer: before the answer": ("after", "offer"),
    "accept: before the record": ("before", "accept"),
    "accept: before the acknowledgement": ("before", "_acknowledge"),
    "accept: before the event": ("after", "_acknowledge"),
    "accept: before the answer": ("after", "publish_event"),
    "report: before the record": ("before", "finish"),
    "report: before the event": ("after", "finish"),
    "abandon: before the record": ("before", "abandon"),
    "abandon: before the event": ("after", "abandon"),
}
"""Before or after which call of ``WorkloadStore``: between each two lines of ``gateway.leases``."""


def die_once(taken: Path) -> None:
    """End this process unless one has ended here already."""
    try:
        taken.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def dying_store(point: str, taken: Path) -> type:
    """Return a ``WorkloadStore`` whose process ends at ``point``."""
    from jetbridge.bus.workloads import WorkloadStore

    when, name = POINTS[point]

    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die_once(taken)
        answer = await getattr(super(store, self), name)(*args, **kwargs)
        if when == "after":
            die_once(taken)
        return answer

    store = type("DyingStore", (WorkloadStore,), {name: call})
    return store


if __name__ == "__main__":
    from jetbridge.gateway import cli, gateway

    gateway.WorkloadStore = dying_store(  # type: ignore[misc]  # the one name through which it is wired
        os.environ["JETBRIDGE_CHAOS_POINT"], Path(os.environ["JETBRIDGE_CHAOS_TAKEN"])
    )
    sys.exit(cli.main([]))
