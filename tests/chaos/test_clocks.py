"""Wall clocks jump by an hour, in either direction, in the middle of a burst; leases do not care."""

from __future__ import annotations

import contextlib
import time

import pytest
from chaoskit.wallclock import make_wall_clock, restarted_with
from chaoskit.world import SLOTS

pytestmark = [pytest.mark.slow, pytest.mark.long]

HOUR = 3600
TEN_MINUTES = 600


def test_the_tool_really_steps_a_clock(tmp_path):
    clock = make_wall_clock(tmp_path)
    clock.step(HOUR)
    assert clock.read() - time.time() > HOUR / 2
    clock.step(-HOUR)
    assert time.time() - clock.read() > HOUR / 2


@pytest.mark.parametrize(
    ("who", "seconds"),
    [
        ("agents", TEN_MINUTES),
        ("agents", -TEN_MINUTES),
        ("sentinel and router", HOUR),
        ("sentinel and router", -HOUR),
    ],
)
def test_a_wall_clock_steps(world, who, seconds, tmp_path):
    """
    No task notices: leases are counted on monotonic clocks.

    S3 refuses requests that are more than 15 minutes off, so agents may not be further than that.

    The clocks of gateways, Airflow and NATS are not stepped here: tokens between gateway and Airflow carry
    wall-clock times, and rightly stop working between machines that disagree by an hour.
    """
    clock = make_wall_clock(tmp_path)
    processes = (
        [agent.process for agent in world.stack.agents.values()]
        if who == "agents"
        else world.plane("sentinel") + world.plane("router")
    )
    with contextlib.ExitStack() as stepped:
        for process in processes:
            stepped.enter_context(restarted_with(process, clock.environment))
        burst = world.burst(
            f"wall clock of {who} steps {seconds:+} s", width=4 * SLOTS, seconds=2.0, hold=False
        )
        burst.await_started(1)
        burst.breaks(lambda: clock.step(seconds))
        burst.prove(undisturbed=True)
        clock.step(0)


def test_a_wall_clock_steps_while_a_lease_runs_out(world, tmp_path):
    """The sentinel, an hour ahead at once, still counts a whole lease of silence."""
    clock = make_wall_clock(tmp_path)
    with contextlib.ExitStack() as stepped:
        for process in world.plane("sentinel"):
            stepped.enter_context(restarted_with(process, clock.environment))
        burst = world.burst("agent killed, wall clock of sentinel steps")
        burst.await_started(SLOTS)
        burst.breaks(burst.busiest().process.kill)
        clock.step(HOUR)
        burst.wait(lambda: burst.recovery_seconds() is not None, "a task to begin elsewhere")
        burst.prove()
