"""What a task's supervisor sends when classes are closed, opened, and when the site has a key."""

import json
import uuid
from datetime import UTC, datetime

import httpx
import pytest
from airflow.sdk.api import client as airflow
from airflow.sdk.execution_time.comms import AwaitInputTask, DeferTask

from jetbridge.contracts.masking import MASK, SEALED, WITHHELD_TEXT
from jetbridge.sealing import carried
from jetbridge.sealing.carried import Carried, Task
from jetbridge.sealing.keyring import SealingError, SiteKeys, new_key
from jetbridge.worker.site_client import Site, SiteClient, SiteTaskInstances, SiteXComs, guarded

TASK = Task("d", "r", "t", -1)
TI = uuid.uuid4()
NOW = datetime.now(UTC)
OPEN = ("rendered-fields", "exception-text", "asset-event-extra", "operator-links")


class Instance:
    id, dag_id, run_id, task_id, map_index = TI, "d", "r", "t", -1


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "site.key"
    file.write_text(new_key())
    return file


class Sent(list):
    """Requests as they would reach the gateway."""

    def __init__(self):
        super().__init__()
        self.next_kwargs = None

    def answer(self, request):
        body = json.loads(request.content) if request.content else None
        self.append((request.method, request.url.path, body))
        if request.url.path.endswith("/run"):
            return httpx.Response(200, json=context(self.next_kwargs))
        return httpx.Response(200, json={})


def context(next_kwargs):
    run = {
        "dag_id": "d",
        "run_id": "r",
        "run_after": "2026-01-01T00:00:00Z",
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        "logical_date": None,
        "data_interval_start": None,
        "data_interval_end": None,
        "start_date": None,
        "end_date": None,
        "partition_key": None,
    }
    return {
        "dag_run": run,
        "max_tries": 0,
        "should_retry": False,
        "next_method": "resume",
        "next_kwargs": next_kwargs,
        "task_reschedule_count": 0,
        "variables": [],
        "connections": [],
    }


@pytest.fixture
def sent():
    return Sent()


@pytest.fixture
def client(sent):
    made = []

    def make(*opened, key_file=None):
        inner = airflow.Client(
            base_url=None, dry_run=True, token="", transport=httpx.MockTransport(sent.answer)
        )
        made.append(inner)
        return guarded(inner, Site(opened, str(key_file) if key_file else None), Instance)

    yield make
    for one in made:
        one.close()


CALLS = {
    "rendered fields": (
        lambda it: it.task_instances.set_rtif(TI, {"sql": "secret"}),
        {"sql": MASK},
        {"sql": "secret"},
    ),
    "a reason to try again": (
        lambda it: it.task_instances.retry(TI, NOW, None, retry_reason="secret"),
        {"retry_reason": WITHHELD_TEXT},
        {"retry_reason": "secret"},
    ),
    "a label of a mapped task, at its end": (
        lambda it: it.task_instances.finish(TI, "failed", NOW, "secret"),
        {"rendered_map_index": None},
        {"rendered_map_index": "secret"},
    ),
    "extras of asset events": (
        lambda it: it.task_instances.succeed(TI, NOW, [], [{"extra": {"a": "secret"}}], "secret"),
        {"outlet_events": [{"extra": {"a": MASK}}], "rendered_map_index": None},
        {"outlet_events": [{"extra": {"a": "secret"}}], "rendered_map_index": "secret"},
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_closed_is_masked_before_it_is_sent(client, sent, call):
    act, closed, opened = CALLS[call]
    act(client())
    act(client(*OPEN))
    bodies = [body for _, _, body in sent]
    assert "secret" not in json.dumps(bodies[0])
    assert {name: bodies[0][name] for name in closed} == closed
    assert {name: bodies[1][name] for name in opened} == opened


@pytest.mark.parametrize("opened", [(), OPEN])
def test_links_and_labels_are_sent_only_where_they_are_open(client, sent, opened):
    it = client(*opened)
    it.xcoms.set("d", "r", "t", "_link_Where", "https://example.com/secret", None)
    it.task_instances.set_rendered_map_index(TI, "secret")
    assert len(sent) == (2 if opened else 0)
    it.xcoms.set("d", "r", "t", "return_value", {"jetbridge.xcom": 1}, None)
    assert sent[-1][2] == {"jetbridge.xcom": 1}


def deferral():
    return DeferTask(
        classpath="a.B",
        trigger_kwargs={"secret": "secret"},
        next_method="resume",
        next_kwargs={"more": "secret"},
        rendered_map_index="secret",
    )


def test_a_deferral_is_sealed_and_the_second_half_gets_it_back(client, sent, key_file):
    it = client(key_file=key_file)
    it.task_instances.defer(TI, deferral())
    body = sent[-1][2]
    assert "secret" not in json.dumps(body)
    keys = SiteKeys(key_file)
    assert carried.open_(keys, TASK, Carried.TRIGGER_ARGUMENTS, body["trigger_kwargs"]) == {
        "secret": "secret"
    }
    event = carried.seal(keys, TASK, Carried.EVENT, {"found": 1})
    sent.next_kwargs = body["next_kwargs"] | {"event": event}
    context = it.task_instances.start(TI, 7, NOW)
    assert context.next_kwargs == {"more": "secret", "event": {"found": 1}}


def test_waiting_for_a_person_is_sealed_too(client, sent, key_file):
    wait = AwaitInputTask(next_method="resume", next_kwargs={"more": "secret"})
    client(key_file=key_file).task_instances.await_input(TI, wait)
    assert sent[-1][2]["next_kwargs"].keys() == {SEALED}


def test_without_a_key_the_gateway_seals(client, sent):
    client().task_instances.defer(TI, deferral())
    assert sent[-1][2]["trigger_kwargs"] == {"secret": "secret"}
    sent.next_kwargs = {"more": 1, "event": 2}
    assert client().task_instances.start(TI, 7, NOW).next_kwargs == {"more": 1, "event": 2}


def test_an_envelope_without_a_key_for_it_is_said(client, sent, key_file):
    client(key_file=key_file).task_instances.defer(TI, deferral())
    sent.next_kwargs = sent[-1][2]["next_kwargs"]
    with pytest.raises(SealingError, match="JETBRIDGE_AGENT_SITE_KEY_FILE"):
        client().task_instances.start(TI, 7, NOW)


def test_everything_else_is_airflows_client(client, sent):
    it = client()
    it.task_instances.heartbeat(TI, 7)
    assert it.variables is not None
    assert [path.rpartition("/")[2] for _, path, _ in sent] == ["heartbeat"]


LOOKED_AT = {
    SiteTaskInstances: {
        "await_input",
        "defer",
        "finish",
        "get_count",
        "get_previous",
        "get_previous_successful_dagrun",
        "get_reschedule_start_date",
        "get_task_breakcrumbs",
        "get_task_states",
        "heartbeat",
        "reschedule",
        "retry",
        "set_rendered_map_index",
        "set_rtif",
        "skip_downstream_tasks",
        "start",
        "succeed",
        "validate_inlets_and_outlets",
    },
    SiteXComs: {"delete", "get", "get_sequence_item", "get_sequence_slice", "head", "set"},
}


@pytest.mark.parametrize("kind", LOOKED_AT)
def test_site_client_hooks(kind):
    """Airflow's client has no operation on these that nobody looked at."""
    theirs = {name for name in dir(kind.__mro__[1]) if not name.startswith("_") and name != "client"}
    assert theirs <= LOOKED_AT[kind], theirs - LOOKED_AT[kind]
    assert SiteClient is not None
