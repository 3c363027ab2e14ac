from __future__ import annotations

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from jetbridge.agent.errors import GatewayUnavailableError, GatewayUnreachableError, LeaseLostError
from jetbridge.agent.link import Backoff, Link
from jetbridge.agent.waiting import running


class Calls:
    """Answers with what it was given, one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.made = 0

    async def __call__(self):
        self.made += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def unreachable():
    return GatewayUnreachableError("gw did not answer")


@pytest.fixture
def link():
    return Link(lambda: Backoff(base_seconds=0.001, cap_seconds=0.002))


async def test_repeats_until_answered(link):
    calls = Calls(unreachable(), GatewayUnavailableError("later"), "answer")
    assert await link.until_answered("op", calls) == "answer"
    assert calls.made == 3


async def test_a_final_error_is_not_repeated(link):
    calls = Calls(LeaseLostError("gone"))
    with pytest.raises(LeaseLostError):
        await link.until_answered("op", calls)
    assert calls.made == 1


async def test_an_outage_is_two_lines_however_many_calls_fail(link):
    with capture_logs() as logs:
        await asyncio.gather(
            link.until_answered("poll", Calls(*[unreachable() for _ in range(20)], 1)),
            link.until_answered("heartbeat", Calls(*[unreachable() for _ in range(30)], 1)),
            link.until_answered("report", Calls(unreachable(), LeaseLostError("gone"))),
            return_exceptions=True,
        )
    assert [entry["event"].split(";")[0] for entry in logs] == [
        "gateway connection lost",
        "gateway connection restored",
    ]
    assert logs[0]["reason"] == "gw did not answer"


async def test_one_call_that_keeps_failing_does_not_flap(link):
    no_bus = [GatewayUnavailableError("no bus") for _ in range(40)]
    with capture_logs() as logs:
        async with running(link.until_answered("poll", Calls(*no_bus, 1))) as still_failing:
            while not still_failing.done():
                await link.until_answered("heartbeat", Calls("fine"))
                await asyncio.sleep(0)
    assert len(logs) == 2


async def test_a_cancelled_call_leaves_no_trace(link):
    with capture_logs() as logs:
        endless = asyncio.create_task(link.until_answered("poll", _always_unreachable))
        while not logs:
            await asyncio.sleep(0)
        endless.cancel()
        await asyncio.wait({endless})
        await link.until_answered("heartbeat", Calls("fine"))
    assert [entry["log_level"] for entry in logs] == ["warning", "info"]


async def _always_unreachable():
    raise unreachable()


async def test_a_call_that_comes_through_wakes_the_waiting_ones():
    link = Link(lambda: Backoff(base_seconds=1e6, cap_seconds=1e6))
    tried = asyncio.Event()
    answers = [unreachable(), "second"]

    async def call():
        tried.set()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    waiting = asyncio.create_task(link.until_answered("report", call))
    await tried.wait()
    await asyncio.sleep(0)
    await link.until_answered("heartbeat", Calls("fine"))
    assert await asyncio.wait_for(waiting, 30) == "second"


def test_backoff_grows_to_its_cap_and_jitters_fully(monkeypatch):
    limits = []
    monkeypatch.setattr(random, "uniform", lambda low, high: limits.append((low, high)) or high)
    backoff = Backoff(base_seconds=0.5, cap_seconds=15.0)
    for _ in range(2000):
        backoff.next_seconds()
    assert limits[:6] == [(0, 0.5), (0, 1), (0, 2), (0, 4), (0, 8), (0, 15)]
    assert limits[-1] == (0, 15)
