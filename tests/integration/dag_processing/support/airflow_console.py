"""
Scripts inside of Airflow: it is imported once, and each script runs in a fork of that process.

Importing Airflow takes seconds of a processor, which tests that ask it one small thing after another would
pay each time. Nothing is connected before the fork, so nothing is shared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class ScriptError(Exception):
    """A script raised; the text is what it wrote to stderr."""


class AirflowConsole:
    """The process that forks; use :func:`airflow_console`. One script at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, script: str, *arguments: str) -> str:
        """
        Run ``script`` with ``arguments`` in ``sys.argv``, as ``python -c`` would; returns what it prints.

        Raises :class:`ScriptError` when it raises or exits with anything but 0.
        """
        ask, answer = self._process.stdin, self._process.stdout
        assert ask is not None and answer is not None  # noqa: PT018 - both are pipes
        print(json.dumps([script, *arguments]), file=ask, flush=True)
        line = answer.readline()
        if not line:
            raise ScriptError(f"the process that imported Airflow ended with {self._process.wait()}")
        status, out, err = json.loads(line)
        if status != 0:
            raise ScriptError(err)
        return str(out)


@contextmanager
def airflow_console(environment: Mapping[str, str]) -> Iterator[AirflowConsole]:
    """Start it with Airflow's environment; it ends with the block."""
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield AirflowConsole(process)  # leaving the block closes stdin, at which it ends


def main() -> None:
    """Answer each line of stdin, a script and its arguments as JSON, with a line of JSON."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever Airflow prints is no answer
    import airflow.models.serialized_dag
    import airflow.settings  # noqa: F401

    for line in sys.stdin:
        script, *arguments = json.loads(line)
        print(json.dumps(_in_a_fork(script, arguments)), file=answers, flush=True)


def _in_a_fork(script: str, arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_run(script, arguments))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


def _run(script: str, arguments: list[str]) -> int:
    sys.argv = ["-c", *arguments]
    status = 0
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})  # noqa: S102 - what it is for
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - told as python itself would
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    main()
