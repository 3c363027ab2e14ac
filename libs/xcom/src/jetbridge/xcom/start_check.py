"""
Says whether what this environment configures answers: ``python -m jetbridge.xcom.start_check``.

Run by agents at their start, and again and again by the sentinel of a site, which names one of the checks as
an argument. Prints one sentence and ends with 1 when something does not answer. Airflow is imported only to
ask a secrets backend, which is the one part that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from jetbridge.xcom.errors import ObjectStoreError
from jetbridge.xcom.settings import ObjectStoreSettings
from jetbridge.xcom.store import ObjectStore

PROBE = "jetbridge-start-check"
"""Name of the object that is written, and of the connection and variable that nobody has."""

STORE = "store"
SECRETS_BACKEND = "secrets-backend"

_OURS = "jetbridge.xcom."
_STORE_OPTIONS = {
    "AIRFLOW__CORE__XCOM_BACKEND": "the XCom store",
    "AIRFLOW__WORKERS__STATE_STORE_BACKEND": "the state store",
}


class NoAnswerError(Exception):
    """Something that is configured does not answer as it should."""


def main(only: Sequence[str] = ()) -> int:
    """Run every check that the environment calls for, or those of them that are named."""
    for name, check in checks(os.environ):
        if only and name not in only:
            continue
        try:
            check()
        except NoAnswerError as exc:
            print(exc)  # noqa: T201 - read by the agent
            return 1
    return 0


def checks(env: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what is to be checked, by name."""
    named = [name for option, name in _STORE_OPTIONS.items() if env.get(option, "").startswith(_OURS)]
    if named:
        yield STORE, lambda: check_store(" and ".join(named))
    if has_secrets_backend(env):
        yield SECRETS_BACKEND, check_secrets_backend


def check_store(name: str) -> None:
    """Write, read and delete a small object; raises :class:`NoAnswerError`."""
    try:
        settings = ObjectStoreSettings.load()
        store = ObjectStore(settings, settings.xcom_bucket)
        key = f"{settings.key_prefix}{PROBE}/{os.getpid()}"
        store.put(key, BytesIO(PROBE.encode()))
        store.get(key, BytesIO())
        store.delete(key)
    except ObjectStoreError as exc:
        raise NoAnswerError(f"{name} cannot be used: {exc}") from exc


def has_secrets_backend(env: Mapping[str, str]) -> bool:
    """Say whether tasks may have a secrets backend besides their environment."""
    if any(env.get(f"AIRFLOW__{section}") for section in ("SECRETS__BACKEND", "WORKERS__SECRETS_BACKEND")):
        return True
    home = env.get("AIRFLOW_HOME")
    return home is not None and (Path(home) / "airflow.cfg").exists()


def check_secrets_backend() -> None:
    """Ask the configured backend for what nobody has; raises :class:`NoAnswerError`."""
    name = "of [secrets] backend"
    try:
        # Imported here because it is slow and rarely needed; and it fails when the backend cannot be made.
        from airflow.sdk.configuration import get_custom_secret_backend  # noqa: PLC0415

        backend = get_custom_secret_backend(worker_mode=True)
        if backend is None:
            return
        name = type(backend).__name__
        backend.get_variable(PROBE)
        backend.get_connection(PROBE)
    except Exception as exc:  # every backend has its own errors
        # Not its text: some clients quote the request, which may hold a token.
        raise NoAnswerError(
            f"the secrets backend {name} does not answer: {_chain(exc)}. Check [secrets] backend and "
            "backend_kwargs (or [workers] secrets_backend), its address and this agent's credentials for it"
        ) from exc


def _chain(error: BaseException) -> str:
    """Return the types of an error and what caused it."""
    names: list[str] = []
    one: BaseException | None = error
    while one is not None and len(names) < 5:
        names.append(type(one).__name__)
        one = one.__cause__ or one.__context__
    return " caused by ".join(names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
