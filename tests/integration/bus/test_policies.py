"""Policies through the command, the bucket and the live view that services keep."""

import asyncio
import json
import uuid

import pytest

from jetbridge.bus import policy_cli
from jetbridge.bus.errors import ConflictError
from jetbridge.bus.policies import Policies, PolicyStore
from jetbridge.contracts.policies import STARVING_AFTER_SECONDS
from jetbridge.contracts.records import OnAgentLost


@pytest.fixture
async def store(bus):
    """The session's bucket, empty before and after: what is decided here holds for everybody's tests."""
    store = await PolicyStore.open(bus)
    await forget_all(store)
    yield store
    await forget_all(store)


async def forget_all(store):
    for record in await store.list():
        await store.remove(await store.get(record.scope))


@pytest.fixture
def policy(nats_url, monkeypatch, capsys, store):  # noqa: ARG001 - the bucket begins empty
    """Run a command as from a shell; returns its exit code, stdout and stderr."""
    monkeypatch.setenv("JETBRIDGE_NATS_URL", nats_url)

    async def run(*argv):
        code = await asyncio.to_thread(policy_cli.main, list(argv))
        return (code, *capsys.readouterr())

    return run


async def test_what_is_set_holds_for_its_queue_and_nothing_else(policy):
    code, out, _ = await policy("set", "queue:gpu", "on_agent_lost=wait", "wait_seconds=60")
    assert code == 0
    assert out.splitlines() == ["+ queue:gpu on_agent_lost=wait", "+ queue:gpu wait_seconds=60"]
    await policy("set", "deployment", "fallback_queues=a, b")
    _, gpu, _ = await policy("show", "--queue", "gpu")
    _, other, _ = await policy("show", "--queue", "other")
    shown = json.loads(gpu)
    assert set(shown.pop("boundary").values()) == {"closed"}
    assert shown == {
        "on_agent_lost": "wait",
        "wait_seconds": 60.0,
        "fallback_queues": ["a", "b"],
        "starving_after_seconds": STARVING_AFTER_SECONDS,
        "when_starving": "report",
    }
    assert json.loads(other)["on_agent_lost"] == "reroute"


async def test_an_empty_value_leaves_it_to_wider_scopes_and_an_empty_policy_is_none(policy, store):
    await policy("set", "queue:gpu", "on_agent_lost=fail")
    _, out, _ = await policy("set", "queue:gpu", "on_agent_lost=")
    assert out.strip() == "- queue:gpu on_agent_lost=fail"
    assert await store.list() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["on_agent_lost"], "not FIELD=VALUE"),
        (["colour=red"], "no field 'colour'"),
        (["on_agent_lost=pray"], "Invalid enum value 'pray'"),
        (["wait_seconds=-1"], "wait_seconds"),
        (["wait_seconds=soon"], "wait_seconds"),
        (["fallback_queues=a,,b"], "length >= 1"),
        (["boundary.=open"], "classes of data are"),
        (["boundary.xcom-values=half"], "open or closed"),
    ],
)
async def test_a_mistake_changes_nothing(policy, store, words, says):
    code, _, err = await policy("set", "queue:gpu", "on_agent_lost=fail", *words)
    assert code == 2
    assert says in err
    assert await store.list() == []


async def test_a_scope_must_be_one(policy):
    with pytest.raises(SystemExit):
        await policy("set", "gpu", "on_agent_lost=fail")


async def test_a_file_can_be_compared_and_applied(policy, tmp_path):
    await policy("set", "queue:gpu", "on_agent_lost=fail", "fallback_queues=a,b")
    await policy("set", "site:paris", "boundary.log-lines=open")
    _, out, _ = await policy("show", "--json")
    file = tmp_path / "policies.json"
    file.write_text(out)
    assert await policy("diff", str(file)) == (0, "as in the file\n", "")
    await policy("set", "queue:gpu", "on_agent_lost=")
    code, out, _ = await policy("diff", str(file))
    assert (code, out.strip()) == (3, "+ queue:gpu on_agent_lost=fail")
    await policy("set", "--file", str(file))
    assert (await policy("diff", str(file)))[0] == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '[{"scope": "gpu"}]',
        '[{"scope": "deployment", "colour": 1}]',
        '[{"scope": "deployment"}, {"scope": "deployment"}]',
    ],
)
async def test_a_file_that_is_none_is_refused_as_a_whole(policy, tmp_path, text):
    file = tmp_path / "policies.json"
    file.write_text(text)
    code, _, err = await policy("set", "--file", str(file))
    assert code == 2
    assert err.startswith("jetbridge policy set: ")


async def test_services_see_a_change_without_asking(bus, store, policy, eventually):
    policies = Policies(bus, store)
    watching = asyncio.create_task(policies.mirror.run())
    try:
        await policies.mirror.ready.wait()
        queue = f"q-{uuid.uuid4().hex}"
        assert policies.failover(queue).on_agent_lost is OnAgentLost.REROUTE
        await policy("set", f"queue:{queue}", "on_agent_lost=fail", "boundary.log-lines=open")
        await eventually(lambda: policies.failover(queue).on_agent_lost is OnAgentLost.FAIL)
        assert policies.boundary_rule("log-lines", queue) == "open"
        assert policies.boundary_rule("log-lines", "other") is None
        await policy("set", f"queue:{queue}", "on_agent_lost=", "boundary.log-lines=")
        await eventually(lambda: policies.failover(queue).on_agent_lost is OnAgentLost.REROUTE)
    finally:
        watching.cancel()


async def test_two_people_do_not_undo_each_other(policy, store):
    await policy("set", "deployment", "on_agent_lost=fail")
    seen = await store.get("deployment")
    await policy("set", "deployment", "when_starving=move")
    with pytest.raises(ConflictError):
        await store.change(seen, seen.record)
