"""The process in which Airflow's manager runs: limits, set-up, and the first import of Airflow."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import structlog

from jetbridge.agent.prctl import die_with_parent

PRELOADED = (
    "airflow.sdk",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.sensors.external_task",
    "airflow.providers.standard.sensors.filesystem",
)
"""What most Dags import. Imported once here, before the parsers are forked."""


def main(argv: Sequence[str]) -> int:
    """Parse until the agent is gone or says stop."""
    options = _options(argv)
    die_with_parent(options.agent_pid, signal.SIGKILL)
    # Everything below imports Airflow, which reads its configuration from the environment once.
    from jetbridge.dag_processor.manager import RemoteManager  # noqa: PLC0415
    from jetbridge.dag_processor.parser import ParserLimits  # noqa: PLC0415
    from jetbridge.dag_processor.plane import AgentGoneError, Plane  # noqa: PLC0415
    from jetbridge.dag_processor.reporter import Reporter  # noqa: PLC0415

    for module in PRELOADED:
        with suppress(ImportError):  # a provider that is not installed here
            importlib.import_module(module)
    os.set_inheritable(options.fd, False)  # noqa: FBT003 - not for programs that Dag code starts
    plane = Plane(socket.socket(fileno=options.fd))
    limits = ParserLimits(options.parser_memory_mib << 20, options.parser_output_kib << 10)
    manager = RemoteManager(max_runs=-1, plane=plane, limits=limits, reporter=Reporter(plane))
    manager.heartbeat = manager.attend
    try:
        manager.run()  # type: ignore[no-untyped-call]
    except AgentGoneError as error:
        structlog.get_logger(__name__).warning("manager ends", reason=str(error))
        manager.terminate()  # type: ignore[no-untyped-call]
        manager.end()  # type: ignore[no-untyped-call]
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="jetbridge.dag_processor.manager_process")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--agent-pid", type=int, required=True)
    parser.add_argument("--parser-memory-mib", type=int, required=True)
    parser.add_argument("--parser-output-kib", type=int, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
