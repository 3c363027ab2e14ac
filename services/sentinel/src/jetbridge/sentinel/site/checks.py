"""
Whether what the agents of the site need answers: the XCom store and the secrets backend.

Both are asked as tasks would ask them, with the same settings from the same environment. The secrets backend
is whatever Airflow is told to use, and is asked as agents ask it at their start, in a process of its own:
importing Airflow and a cloud's library takes seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from jetbridge.contracts.sites import CheckSeen
from jetbridge.sentinel.site.view import MAX_DETAIL, SiteView
from jetbridge.xcom import start_check
from jetbridge.xcom.client import NoCredentialsError, connect
from jetbridge.xcom.errors import ObjectStoreSettingsError
from jetbridge.xcom.settings import ObjectStoreSettings
from jetbridge.xcom.start_check import SECRETS_BACKEND, has_secrets_backend

log = structlog.get_logger(__name__)

XCOM_STORE = "xcom-store"

Check = Callable[[], Awaitable[None]]


class CheckFailedError(Exception):
    """Something does not answer as it should; the text says how, without a secret."""


def checks_of(env: Mapping[str, str], data_dir: Path, timeout_seconds: float) -> dict[str, Check]:
    """Return a check for each backend that the environment configures."""
    found: dict[str, Check] = {}
    if "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL" in env:
        found[XCOM_STORE] = lambda: _xcom_store(timeout_seconds)
    as_tasks = probe_environment(env, data_dir)
    if has_secrets_backend(as_tasks):
        found[SECRETS_BACKEND] = lambda: _secrets_backend(as_tasks)
    return found


async def keep_checking(
    name: str, check: Check, view: SiteView, interval_seconds: float, timeout_seconds: float
) -> None:
    """Check and take note of the result, for as long as the agent runs."""
    while True:
        view.check(await run_check(name, check, timeout_seconds))
        await asyncio.sleep(interval_seconds)


async def run_check(name: str, check: Check, timeout_seconds: float) -> CheckSeen:
    """Run one check within its limit; never raises."""
    try:
        async with asyncio.timeout(timeout_seconds):
            await check()
    except CheckFailedError as error:
        return CheckSeen(name=name, ok=False, detail=str(error)[:MAX_DETAIL])
    except TimeoutError:
        return CheckSeen(name=name, ok=False, detail=f"no answer within {timeout_seconds:g} s")
    except Exception as error:
        log.exception("check failed in itself", check=name)
        return CheckSeen(name=name, ok=False, detail=f"the check failed: {type(error).__name__}")
    return CheckSeen(name=name, ok=True)


async def _xcom_store(timeout_seconds: float) -> None:
    await asyncio.to_thread(_ask_store, timeout_seconds)


def _ask_store(timeout_seconds: float) -> None:
    try:
        settings = ObjectStoreSettings.load().model_copy(
            update={
                "retries": 0,
                "connect_timeout_seconds": timeout_seconds,
                "read_timeout_seconds": timeout_seconds,
            }
        )
        # Whether the bucket exists is of no interest: it is made on demand. That there is an answer is.
        connect(settings).bucket_exists(settings.xcom_bucket)
    except (ObjectStoreSettingsError, NoCredentialsError) as error:
        raise CheckFailedError(str(error)) from error
    except MinioException as error:
        code = getattr(error, "code", None)
        raise CheckFailedError(f"{settings.endpoint_url} answered {code or type(error).__name__}") from error
    except (HTTPError, OSError) as error:
        raise CheckFailedError(f"{settings.endpoint_url} did not answer: {type(error).__name__}") from error


def probe_environment(env: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """Return the environment in which the secrets backend is asked: the tasks', without the agent's own."""
    kept = {name: value for name, value in env.items() if not name.startswith("JETBRIDGE_AGENT_")}
    return {"AIRFLOW_HOME": str(data_dir / "airflow"), **kept}


async def _secrets_backend(env: Mapping[str, str]) -> None:
    # -P keeps the current directory off the module path, where any file could pose as Airflow.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", start_check.__name__, SECRETS_BACKEND),
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:  # out of time
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise CheckFailedError(lines[-1] if lines else f"the probe ended with status {process.returncode}")
