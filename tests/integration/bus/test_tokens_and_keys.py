"""Agent tokens and shared keys in their buckets."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jetbridge.bus.apply import apply
from jetbridge.bus.connection import open_bus
from jetbridge.bus.keys import shared_key
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tokens import TokenStore, is_alive, is_valid

NOW = datetime.now(UTC)


@pytest.fixture
async def tokens(bus):
    return await TokenStore.open(bus)


async def test_a_new_token_opens_and_its_secret_is_nowhere(tokens):
    token, record = await tokens.create("paris")
    entry = await tokens.bucket.kv.get(token.id)
    assert is_valid(record, token.secret, NOW)
    assert not is_valid(record, token.secret[:-1] + "?", NOW)
    assert token.secret.encode() not in entry.value
    assert (record.expires_at - record.created_at) == timedelta(days=90)


async def test_it_expires(tokens):
    _, record = await tokens.create("short", timedelta(seconds=60))
    assert is_alive(record, record.created_at + timedelta(seconds=59))
    assert not is_alive(record, record.expires_at)


async def test_revoked_once_is_revoked_for_good(tokens):
    token, _ = await tokens.create("lost laptop")
    first = await tokens.revoke(token.id)
    second = await tokens.revoke(token.id)
    assert first == second
    assert not is_valid(second, token.secret, NOW)
    assert await tokens.revoke("000000000000") is None


async def test_list_is_by_age_and_complete(tokens):
    made = [(await tokens.create(f"t{n}"))[0].id for n in range(3)]
    assert [record.id for record in await tokens.list() if record.id in made] == made


async def test_a_bucket_without_records_is_empty_and_not_away(own_nats_url):
    async with open_bus(BusSettings(url=own_nats_url), "tests") as bus:
        await apply(bus, 1)
        assert await (await TokenStore.open(bus)).list() == []


async def test_two_gateways_that_start_together_share_one_key(bus):
    keys = await asyncio.gather(*(shared_key(bus, "test-race") for _ in range(8)))
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 32
