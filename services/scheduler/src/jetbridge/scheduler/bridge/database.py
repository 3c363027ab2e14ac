"""
Airflow's metadata database from an event loop: plain functions, in a bounded pool of threads.

Handlers that write take a session, and what they did is committed when they return and rolled back when
they raise. That is Airflow's own ``create_session``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from airflow.utils.session import create_session
from sqlalchemy.orm import Session

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """Runs blocking functions, at most ``threads`` at a time."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bridge-db")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that opens its own sessions, as most of Airflow's do."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    async def transaction(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call ``function(session, …)`` in one transaction."""

        def in_session() -> T:
            with create_session() as session:
                return function(session, *args, **kwargs)

        return await self.run(in_session)

    def close(self) -> None:
        """Wait for what runs and end the threads."""
        self._pool.shutdown(wait=True)
