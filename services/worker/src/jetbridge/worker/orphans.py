"""What the agent does about processes that a dead fork server left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import psutil
import structlog

log = structlog.get_logger(__name__)

KILL_SECONDS = 10.0
"""Killing everything takes milliseconds; only a process stuck in the kernel takes longer."""


async def kill_orphans() -> bool:
    """
    Kill every descendant of this process, wait until all are gone, and say whether they are.

    For an agent (which adopts orphans) whose fork server has just died: the kernel kills supervisors and
    tasks, but not what tasks had started.
    """
    me = psutil.Process()
    give_up_at = time.monotonic() + KILL_SECONDS
    while children := me.children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                child.kill()
        for child in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG does not wait
        if time.monotonic() > give_up_at:
            log.error("processes of ended tasks cannot be killed", pids=[child.pid for child in children])
            return False
        await asyncio.sleep(0.02)
    return True
