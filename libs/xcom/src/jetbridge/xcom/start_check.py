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
from typing import Any

from jetbridge.xcom.errors import ObjectStoreError
from jetbridge.xcom.settings import ObjectStoreSettings, SecretsCheckSettings
from jetbridge.xcom.store import ObjectStore

PROBE = "jetbridge-start-check"
"""Name of the object that is written, and of a connection and a variable that nobody has."""

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
    """Ask the configured backend; raises :class:`NoAnswerError`."""
    name = "of [secrets] backend"
    try:
        # Imported here because it is slow and rarely needed; and it fails when the backend cannot be made.
        from airflow.sdk.configuration import get_custom_secret_backend  # noqa: PLC0415

        backend = get_custom_secret_backend(worker_mode=True)
        if backend is None:
            return
        name = type(backend).__name__
        if probe := SecretsCheckSettings().probe:
            _find(backend, probe)
        else:
            backend.get_variable(PROBE)
            backend.get_connection(PROBE)
    except Exception as exc:  # every backend has its own errors
        raise NoAnswerError(f"the secrets backend {name} {_what_is_wrong(exc)}") from exc


def _find(backend: Any, probe: str) -> None:
    """Raise unless the backend has a connection or a variable of this name; one of them may be denied."""
    problem: Exception = LookupError()
    for look in (backend.get_variable, backend.get_connection):
        try:
            if look(probe) is not None:
                return
        except Exception as exc:  # noqa: BLE001 - the other one is asked all the same
            problem = exc
    raise problem


def _what_is_wrong(error: Exception) -> str:
    # Not the error's text: some clients quote the request, which may hold a token.
    if isinstance(error, LookupError) and not error.args:
        return "has neither a connection nor a variable of the name in JETBRIDGE_SECRETS_PROBE"
    names = _chain(error)
    if any(word in name for word in _DENIED for name in names):
        return (
            f"denies access: {' caused by '.join(names)}. Give this agent's credentials the right to read "
            "secrets there. Where they may read only some, name one of those in JETBRIDGE_SECRETS_PROBE"
        )
    return (
        f"does not answer: {' caused by '.join(names)}. Check [secrets] backend and "
        "backend_kwargs (or [workers] secrets_backend), its address and this agent's credentials for it"
    )


_DENIED = ("AccessDenied", "Forbidden", "PermissionDenied", "UnauthorizedOperation")
"""In an error's type or code: the backend answers, and says no. AWS, Azure and Vault, Google, AWS."""


def _chain(error: BaseException) -> list[str]:
    """Return the types of an error and what caused it, with the code of those of AWS."""
    names: list[str] = []
    one: BaseException | None = error
    while one is not None and len(names) < 5:
        names.append(type(one).__name__ + _code(one))
        one = one.__cause__ or one.__context__
    return names


def _code(error: BaseException) -> str:
    """Return what botocore was answered, a word of AWS' own; empty for other errors."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return f" ({code})" if isinstance(code, str) and code.isalnum() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
