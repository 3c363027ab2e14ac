"""The audit is written in chains, summed up, and shows when a record was changed, removed or moved."""

import asyncio
import json

import msgspec
import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

from jetbridge.bus import boundary_cli
from jetbridge.bus.apply import apply
from jetbridge.bus.audit_log import ChainWriter, read_audit
from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.audit import BoundaryAudited, BoundaryCount
from jetbridge.contracts.envelope import seal
from jetbridge.contracts.subjects import AUDIT_STREAM, audit_subject


@pytest.fixture
async def own_bus(own_nats_url):
    async with open_bus(BusSettings(url=own_nats_url), "tests") as bus:
        await apply(bus, 1)
        yield bus


@pytest.fixture
def boundary(own_nats_url, monkeypatch, capsys):
    monkeypatch.setenv("JETBRIDGE_NATS_URL", own_nats_url)

    async def run(*argv):
        code = await asyncio.to_thread(boundary_cli.main, list(argv))
        return code, capsys.readouterr().out

    return run


def counted(agent="a1", site="paris", count=1, size=10, data="rendered-fields", outcome="masked"):
    return BoundaryCount(
        data=data, outcome=outcome, agent=agent, site=site, operation="PUT /x", count=count, bytes=size
    )


async def write(bus, gateway="gateway-one", records=3, *, closed=True):
    chain = ChainWriter(bus, gateway)
    for number in range(1, records + 1):
        chain.add([counted(count=number)], closed=closed and number == records)
    await chain.flush()
    return [entry async for entry in read_audit(bus)]


async def put(bus, body, gateway):
    """Publish a record as somebody with access to NATS could."""
    await bus.js.publish(audit_subject(gateway), seal(msgspec.json.decode(body, type=BoundaryAudited)))


async def test_the_report_sums_up_by_class_agent_and_operation(own_bus, boundary):
    await write(own_bus)
    await write(own_bus, "gateway-two", closed=False)
    chain = ChainWriter(own_bus, "gateway-three")
    chain.add([counted(site="lyon", data="variables", outcome="refused", size=0)])
    await chain.flush()

    code, out = await boundary("report", "--json")
    assert code == 0
    assert {(row["class"], row["outcome"], row["count"], row["bytes"]) for row in json.loads(out)} == {
        ("rendered-fields", "masked", 12, 60),
        ("variables", "refused", 1, 0),
    }
    code, out = await boundary("report", "--site", "lyon")
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [["variables", "refused", "a1"]]
    assert json.loads((await boundary("report", "--json", "--since", "2099-01-01"))[1]) == []
    assert len(json.loads((await boundary("report", "--json", "--since", "1h"))[1])) == 2


async def test_whole_chains_are_whole_and_a_killed_gateway_shows(own_bus, boundary):
    await write(own_bus)
    await write(own_bus, "gateway-two", closed=False)
    code, out = await boundary("verify")
    assert code == 0
    assert "gateway-one: records 1 to 3" in out
    assert "ended in order" in out
    assert "gateway-two" in out
    assert "was killed" in out
    assert "6 records in 2 chains, all whole" in out


async def test_an_empty_audit(own_bus, boundary):  # noqa: ARG001 - the stream is there
    assert await boundary("report") == (0, "nothing was counted\n")
    assert (await boundary("verify"))[0] == 0


CHANGES = {
    "a record is changed": (lambda bodies: [bodies[0], altered(bodies[1]), *bodies[2:]], "was changed"),
    "a record is removed": (lambda bodies: [bodies[0], *bodies[2:]], "records 2 to 2 are missing"),
    "the first is removed": (lambda bodies: bodies[1:], "records before 2 are gone"),
    "two are swapped": (lambda bodies: [bodies[0], bodies[2], bodies[1], bodies[3]], "comes after record 3"),
    "one is put in": (lambda bodies: [*bodies[:2], altered(bodies[1]), *bodies[2:]], "comes after record 2"),
    "one is put behind the end": (lambda bodies: [*bodies, following(bodies[-1])], "after the last one"),
}


def altered(body):
    record = msgspec.json.decode(body, type=BoundaryAudited)
    return msgspec.json.encode(msgspec.structs.replace(record, counts=()))


def following(body):
    record = msgspec.json.decode(body, type=BoundaryAudited)
    return msgspec.json.encode(
        msgspec.structs.replace(record, sequence=record.sequence + 1, previous=hashed(body), closed=False)
    )


def hashed(body):
    from jetbridge.contracts.audit import body_hash

    return body_hash(body)


@pytest.mark.parametrize("change", CHANGES)
async def test_tampering_is_found(own_bus, boundary, change):
    tamper, problem = CHANGES[change]
    bodies = [entry.body for entry in await write(own_bus, "gateway-real", 4)]
    forged = [body.replace(b"gateway-real", b"gateway-fake") for body in bodies]
    # A chain under another name is as whole as the first: its hashes are made anew.
    chain, previous = [], "0" * 64
    for body in forged:
        record = msgspec.structs.replace(msgspec.json.decode(body, type=BoundaryAudited), previous=previous)
        chain.append(msgspec.json.encode(record))
        previous = hashed(chain[-1])
    for body in tamper(chain):
        await put(own_bus, body, "gateway-fake")
    code, out = await boundary("verify")
    assert code == boundary_cli.BROKEN_EXIT_CODE
    broken = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert broken
    assert all("gateway-fake" in line for line in broken)
    assert any(problem in line for line in broken), broken


async def test_a_chain_that_is_cut_off_at_its_end_is_found_with_the_heads_of_before(
    own_bus, boundary, tmp_path
):
    heads = tmp_path / "heads.json"
    await write(own_bus, closed=False)
    assert (await boundary("verify", "--heads", str(heads)))[0] == 0
    known = json.loads(heads.read_text())
    heads.write_text(json.dumps(known | {"gateway-cut": [7, "f" * 64]}))
    code, out = await boundary("verify", "--heads", str(heads))
    assert code == boundary_cli.BROKEN_EXIT_CODE
    assert "gateway-cut: record 7" in out


async def test_nothing_can_be_deleted_from_the_stream(own_bus):
    await write(own_bus)
    with pytest.raises(APIError):
        await own_bus.js.purge_stream(AUDIT_STREAM)
    with pytest.raises(APIError):
        await own_bus.js.delete_msg(AUDIT_STREAM, 2)


async def test_a_record_whose_acknowledgement_was_lost_is_there_once(own_bus, boundary, monkeypatch):
    chain = ChainWriter(own_bus, "gateway-retry")
    chain.add([counted()])
    publish, failed = own_bus.js.publish, []

    async def losing(*args, **kwargs):
        answer = await publish(*args, **kwargs)
        if not failed:
            failed.append(answer)
            raise NatsTimeoutError
        return answer

    monkeypatch.setattr(own_bus.js, "publish", losing)
    with pytest.raises(BusError):
        await chain.flush()
    assert chain.waiting == 1
    await chain.flush()
    assert len([entry async for entry in read_audit(own_bus)]) == 1
    assert (await boundary("verify"))[0] == 0
