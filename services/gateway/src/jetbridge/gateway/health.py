"""
Whether this gateway lives (``/healthz``) and can do its work (``/readyz``).

Not ready: NATS does not answer, a mirror is not complete, or the gateway is shutting down. Redis and
Airflow are reported just as truthfully but do not make it unready: taking every gateway out of service would
turn the loss of presence, or of the api-server, into the loss of every agent's lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

CHECK_SECONDS = 2.0
"""Limit of one check. A dependency that takes longer does not work, whatever it would say."""

_FRESH_SECONDS = 1.0
"""Answers are shared for this long, so that asking often costs the dependencies nothing."""

Check = Callable[[], Awaitable[object]]


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One dependency. ``detail`` says what is wrong; empty when nothing is."""

    ok: bool
    required: bool
    detail: str = ""


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` is ``ready``, ``degraded`` (something not required is away) or ``unready``."""

    status: str
    checks: dict[str, CheckResult]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str = "ok"


class CheckFailedError(Exception):
    """A check's own words about what is wrong."""


class ReadinessProbe:
    """Runs all checks at once, one run at a time."""

    def __init__(self, required: Mapping[str, Check], reported: Mapping[str, Check]) -> None:
        """Take the checks that make the gateway unready, and those that only make it degraded."""
        self._checks = {name: (check, True) for name, check in required.items()}
        self._checks |= {name: (check, False) for name, check in reported.items()}
        self._latest: tuple[float, dict[str, CheckResult]] = (float("-inf"), {})
        self._running = asyncio.Lock()
        self._draining = False

    def drain(self) -> None:
        """Say unready from now on."""
        self._draining = True

    async def read(self) -> Readiness:
        """Return the state of everything, at most a second old."""
        async with self._running:
            if time.monotonic() - self._latest[0] > _FRESH_SECONDS:
                names = list(self._checks)
                results = await asyncio.gather(*(_run(*self._checks[name]) for name in names))
                self._latest = (time.monotonic(), dict(zip(names, results, strict=True)))
        checks = self._latest[1] | {"serving": self._serving()}
        failed = [check for check in checks.values() if not check.ok]
        if any(check.required for check in failed):
            return Readiness(status="unready", checks=checks)
        return Readiness(status="degraded" if failed else "ready", checks=checks)

    def _serving(self) -> CheckResult:
        return CheckResult(
            ok=not self._draining, required=True, detail="shutting down" if self._draining else ""
        )


async def _run(check: Check, required: bool) -> CheckResult:  # noqa: FBT001 - unpacked from the table above
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except CheckFailedError as exc:
        return CheckResult(ok=False, required=required, detail=str(exc))
    except TimeoutError:
        return CheckResult(ok=False, required=required, detail=f"no answer within {CHECK_SECONDS:g} s")
    except Exception as exc:  # noqa: BLE001 - whatever a client library raises, the dependency does not work
        return CheckResult(ok=False, required=required, detail=type(exc).__name__)
    return CheckResult(ok=True, required=required)
