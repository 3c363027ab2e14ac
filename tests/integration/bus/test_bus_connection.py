"""Opening and closing the bus with the server away: no secret in the error, no error in the closing."""

import asyncio

import pytest

from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.settings import BusSettings


async def test_the_error_of_a_first_connection_names_the_place_and_not_the_password():
    settings = BusSettings(url="nats://somebody:very-secret@127.0.0.1:9", connect_timeout_seconds=0.5)
    with pytest.raises(BusUnavailableError, match=r"127\.0\.0\.1:9") as caught:
        async with open_bus(settings, "tests"):
            pass
    assert "very-secret" not in str(caught.value)


async def test_a_bus_whose_server_is_away_closes_without_complaint(nats_server):
    if not nats_server.restartable:
        pytest.skip("the NATS server belongs to somebody else")
    try:
        async with open_bus(BusSettings(url=nats_server.url), "tests") as bus:
            nats_server.kill()
            async with asyncio.timeout(20):
                while bus.client.is_connected:
                    await asyncio.sleep(0.01)
            await bus.client.publish("tests.buffered", b"until the link is back")
        assert bus.client.is_closed
    finally:
        nats_server.start()
