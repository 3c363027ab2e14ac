"""
Asks Airflow's configured secrets backend for one variable, in a process of its own.

Run as ``python -m jetbridge.sentinel.site.secrets_probe NAME``. Exit code 0: the backend answered, with or
without a value. Otherwise the last line on stderr says what is wrong, by the error's type alone: its text may
quote a password.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

SECTIONS = ("AIRFLOW__WORKERS__SECRETS_BACKEND", "AIRFLOW__SECRETS__BACKEND")


class ProbeError(Exception):
    """The backend cannot be asked."""


def backend_of(env: Mapping[str, str]) -> Any:
    """Return the backend that the environment configures; raises :class:`ProbeError`."""
    section = next((name for name in SECTIONS if env.get(name)), None)
    if section is None:
        raise ProbeError("no secrets backend is configured")
    module, _, name = env[section].rpartition(".")
    try:
        kwargs = json.loads(env.get(f"{section}_KWARGS") or "{}")
    except ValueError as error:
        raise ProbeError(f"{section}_KWARGS is not JSON") from error
    try:
        return getattr(importlib.import_module(module), name)(**kwargs)
    except Exception as error:
        raise ProbeError(f"{env[section]} cannot be made: {type(error).__name__}") from error


def main(argv: list[str]) -> int:
    """Ask for the variable ``argv[0]``."""
    try:
        backend = backend_of(os.environ)
        try:
            backend.get_variable(argv[0])
        except Exception as error:
            raise ProbeError(f"{type(backend).__name__} did not answer: {type(error).__name__}") from error
    except ProbeError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the one who started this
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
