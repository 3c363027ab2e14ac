"""
What runs while nothing happens: a whole execution plane, and the plane's own services, process by process.

One agent of each role, one gateway, the router and the plane's sentinel, on real servers. Prints one JSON
document: CPU as a share of one core, and memory as PSS, where what processes share is divided among them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from one_gateway import say
from peers import DAGS, SLOTS
from usage import cpu_seconds, pss_mib

from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.stack import DevStack, StackOptions

ROLES = ("worker", "triggerer", "dag-processor", "sentinel")
AGENTS = (
    AgentSpec(name="worker", slots=SLOTS),
    AgentSpec(name="triggerer", role="triggerer", queues=(), slots=1000),
    AgentSpec(name="dag-processor", role="dag-processor", queues=()),
    AgentSpec(name="sentinel", role="sentinel", queues=()),
)
SUMS = {
    "execution plane": tuple(f"agent-{role}" for role in ROLES),
    "gateway, router, sentinel": ("gateway", "router", "sentinel"),
}
"""What is asked for together: names of processes begin so."""

SETTLE_SECONDS = 20.0
"""Imports are over, the first Dag is parsed, and what was used only for that has been given back."""


def measure(seconds: float) -> dict[str, Any]:
    """Return what each process takes over ``seconds``, and the sums."""
    with tempfile.TemporaryDirectory(prefix="jetbridge-site-") as directory:
        options = StackOptions(
            dags=DAGS, agents=AGENTS, gateways=1, isolate=False, directory=Path(directory), label="bench-site"
        )
        with DevStack(options) as stack:
            stack.client.await_dag("chain")
            time.sleep(SETTLE_SECONDS)
            return _idle(stack.supervisor, seconds)


def _idle(supervisor: Supervisor, seconds: float) -> dict[str, Any]:
    before = cpu_seconds(supervisor, key=str)
    time.sleep(seconds)  # the thing that is measured
    used = cpu_seconds(supervisor, key=str) - before
    cpu = Counter({name: 100 * value / seconds for name, value in used.items()})
    pss = pss_mib(supervisor, key=str)
    return {
        "cpu_percent": {name: round(value, 1) for name, value in cpu.most_common()},
        "pss_mib": {name: round(value) for name, value in pss.most_common()},
        "together": {
            title: {"cpu_percent": round(_sum(cpu, names), 1), "pss_mib": round(_sum(pss, names))}
            for title, names in SUMS.items()
        },
    }


def _sum(values: Counter[str], names: tuple[str, ...]) -> float:
    return sum(value for name, value in values.items() if name.startswith(names))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what idles; prints JSON.")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    say("starting everything")
    result = measure(arguments.seconds)
    print(json.dumps(result | {"cores": os.cpu_count(), "load": os.getloadavg()}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
