"""``jetbridge bridge``: answers the gateways from Airflow's metadata database."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys


def main(argv: list[str]) -> int:
    """Run a bridge until SIGTERM and return the exit code."""
    argparse.ArgumentParser(
        prog="jetbridge bridge",
        description="Answers requests of the gateways from Airflow's metadata database. Settings: "
        "JETBRIDGE_BRIDGE_*, JETBRIDGE_NATS_*, and Airflow's own configuration, as for its scheduler.",
    ).parse_args(argv)
    # Airflow looks for connections in the metadata database in a process that says it is a server's.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from jetbridge.bus.errors import BusError  # noqa: PLC0415 - Airflow reads the variable above
    from jetbridge.bus.settings import BusSettings  # noqa: PLC0415
    from jetbridge.scheduler.bridge.app import run  # noqa: PLC0415
    from jetbridge.scheduler.bridge.settings import BridgeSettings  # noqa: PLC0415
    from jetbridge.telemetry.logs import configure_logging  # noqa: PLC0415
    from jetbridge.telemetry.metrics import Metrics  # noqa: PLC0415
    from jetbridge.telemetry.status import StatusPortError  # noqa: PLC0415
    from jetbridge.telemetry.tracing import TracingConfigurationError, traced  # noqa: PLC0415

    configure_logging("bridge")  # after Airflow was imported, which sets up logging for itself
    try:
        with traced("bridge"):
            asyncio.run(run(BridgeSettings(), BusSettings(), Metrics("bridge")))
    except (BusError, StatusPortError, TracingConfigurationError) as exc:
        print(f"jetbridge bridge: {exc}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    return 0
