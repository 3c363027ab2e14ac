"""A gateway dies between each two lines of the ways of an offer, an accept and a report, under load."""

from __future__ import annotations

import contextlib
import dataclasses
import sys

import pytest
from chaoskit import dying_gateway
from chaoskit.world import SLOTS

pytestmark = [pytest.mark.slow, pytest.mark.long]


@contextlib.contextmanager
def dying(world, point, taken):
    """Have all gateways run with one point at which the first to come by dies."""
    before = [process.command for process in world.plane("gateway")]
    extra = {"JETBRIDGE_CHAOS_POINT": point, "JETBRIDGE_CHAOS_TAKEN": str(taken)}
    try:
        for process in world.plane("gateway"):
            process.stop()
            argv = [sys.executable, dying_gateway.__file__]
            process.command = dataclasses.replace(
                process.command, argv=argv, env={**process.command.env, **extra}
            )
            process.start()  # and no more: it may come by its point before it could be called ready
        yield
    finally:
        for process, command in zip(world.plane("gateway"), before, strict=True):
            process.stop()
            process.command = command
        world.start_again("gateway")


@pytest.mark.parametrize("point", dying_gateway.POINTS)
def test_a_gateway_dies(world, point, tmp_path):
    taken = tmp_path / "taken"
    loses_agent = point.startswith("abandon")  # that is how a worker's successor reports what it lost
    with dying(world, point, taken):
        burst = world.burst(f"gateway dies, {point}", seconds=1.0, hold=loses_agent)
        if loses_agent:
            burst.await_started(SLOTS)
            process = burst.busiest().process
            process.kill()
            process.start()
        burst.wait(taken.exists, "a gateway to come by")
        burst.breaks(lambda: [process.wait(30) for process in world.plane("gateway") if not process.alive])
        world.start_again("gateway")
        burst.prove(undisturbed=not loses_agent)
