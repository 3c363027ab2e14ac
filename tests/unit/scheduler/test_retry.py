"""Trouble is waited out, and logged twice: when it begins and when it ends."""

import pytest
import structlog

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.scheduler import retry
from jetbridge.scheduler.retry import Persistence, Trouble


@pytest.fixture
def persist(monkeypatch):
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0)

    async def connected():
        return "the store"

    return Persistence(connected, Trouble(), concurrency=1)


async def test_tries_until_it_works_and_says_so_twice(persist):
    answers = [BusUnavailableError("away"), TimeoutError(), BusUnavailableError("away"), None]

    async def operation(store):
        assert store == "the store"
        if (answer := answers.pop(0)) is not None:
            raise answer
        return 42

    with structlog.testing.capture_logs() as logs:
        assert await persist(operation) == 42
    assert [line["event"] for line in logs] == ["link.bus_unavailable", "link.bus_available"]
    assert "away" in logs[0]["error"]


async def test_what_waiting_cannot_cure_is_raised(persist):
    async def operation(_):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await persist(operation)


async def test_nothing_is_said_when_there_is_no_trouble(persist):
    async def operation(_):
        return 1

    with structlog.testing.capture_logs() as logs:
        await persist(operation)
    assert logs == []
