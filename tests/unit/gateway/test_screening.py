"""What the gateway does with bodies that carry data of a class, one row each."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.contracts.boundary import DataClass, Decision, decide
from jetbridge.contracts.crossings import EXECUTION
from jetbridge.contracts.masking import MASK, SEALED, WITHHELD_TEXT
from jetbridge.gateway.screening import (
    GATES,
    SCREENS,
    START,
    BodyError,
    Look,
    Outcome,
    RefusedError,
    gate,
    screened,
)
from jetbridge.sealing import carried
from jetbridge.sealing.carried import Carried, Task
from jetbridge.sealing.keyring import Keyring

CLOSED = decide(lambda _data: None)
OPEN = Decision(open=frozenset(DataClass))
TASK = Task("d", "r", "t")
KEYS = Keyring([b"k" * 32])

STATE = "PATCH /execution/task-instances/{task_instance_id}/state"
RTIF = "PUT /execution/task-instances/{task_instance_id}/rtif"
LABEL = "PATCH /execution/task-instances/{task_instance_id}/rendered-map-index"
XCOM = "POST /execution/xcoms/{dag_id}/{run_id}/{task_id}/{key}"
STORE = "PUT /execution/store/ti/{task_instance_id}/{key}"
ASSET = "PUT /execution/store/asset/by-name/value"
RUN = "POST /execution/dag-runs/{dag_id}/{run_id}"

REFERENCE = {
    "jetbridge.xcom": 1,
    "uri": "s3://jetbridge-xcom/d/r/t/-1/return_value.0f.json.gz",
    "bytes": 12,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "encoding": "gzip",
}
STATE_REFERENCE = {"__airflow_state_ref__": "s3://jetbridge-xcom/state/task/d/r/t/-1/k.json"}


def screen(operation, body, decision=CLOSED, key="return_value", prefixes=()):
    look = Look(
        decision=decision, task=TASK, named={"key": key}, at_rest=KEYS, reference_prefixes=tuple(prefixes)
    )
    passed = json.loads(screened(operation, json.dumps(body).encode(), look))
    return passed, {(data, outcome) for data, outcome, _ in look.found}


PASS = [
    (XCOM, REFERENCE),
    (STORE, {"value": STATE_REFERENCE, "expires_at": None}),
    (ASSET, {"value": STATE_REFERENCE}),
    (RUN, {"conf": {}, "reset_dag_run": True}),
    (RTIF, {"bash_command": MASK}),
    (STATE, {"state": "success", "end_date": "2026-01-01T00:00:00Z", "outlet_events": []}),
    (STATE, {"state": "up_for_retry", "retry_reason": WITHHELD_TEXT, "retry_delay_seconds": 1}),
    (STATE, {"state": "deferred", "classpath": "a.B", "trigger_kwargs": {SEALED: "jb1.x.y"}}),
]


@pytest.mark.parametrize(("operation", "body"), PASS)
def test_what_an_honest_agent_sends_passes_as_it_is(operation, body):
    passed, found = screen(operation, body)
    assert passed == body
    assert not {outcome for _, outcome in found} & {Outcome.MASKED, Outcome.REFUSED}


REFUSE = [
    (XCOM, "a value", DataClass.XCOM_VALUES),
    (XCOM, None, DataClass.XCOM_VALUES),
    (XCOM, {"a": 1}, DataClass.XCOM_VALUES),
    (XCOM, REFERENCE | {"extra": "data"}, DataClass.XCOM_VALUES),
    (XCOM, REFERENCE | {"uri": "s3://bucket/not a key: data"}, DataClass.XCOM_VALUES),
    (XCOM, REFERENCE | {"uri": "https://elsewhere/x"}, DataClass.XCOM_VALUES),
    (XCOM, REFERENCE | {"bytes": "12"}, DataClass.XCOM_VALUES),
    (XCOM, REFERENCE | {"bytes": True}, DataClass.XCOM_VALUES),
    (XCOM, REFERENCE | {"sha256": "data"}, DataClass.XCOM_VALUES),
    (XCOM, REFERENCE | {"encoding": "data"}, DataClass.XCOM_VALUES),
    (XCOM, [REFERENCE], DataClass.XCOM_VALUES),
    (XCOM, "gs://site/x", DataClass.XCOM_VALUES),
    (STORE, {"value": "a value"}, DataClass.STATE_STORE_VALUES),
    (STORE, {"value": STATE_REFERENCE | {"more": 1}}, DataClass.STATE_STORE_VALUES),
    (STORE, {"value": {"__airflow_state_ref__": "not a place"}}, DataClass.STATE_STORE_VALUES),
    (ASSET, {"value": 7}, DataClass.STATE_STORE_VALUES),
    (RUN, {"conf": {"a": 1}}, DataClass.RUN_CONF),
    (RUN, {"note": "a note"}, DataClass.RUN_CONF),
]


@pytest.mark.parametrize(("operation", "body", "data"), REFUSE)
def test_what_is_closed_and_cannot_be_replaced_is_refused_with_advice(operation, body, data):
    with pytest.raises(RefusedError, match=f"boundary.{data}=open") as refused:
        screen(operation, body)
    assert refused.value.data is data
    assert "data" not in str(refused.value).split("(")[0], "the refusal quotes what it refuses"
    passed, found = screen(operation, body, OPEN)
    assert passed == body
    assert found == {(data, Outcome.CROSSED)}


MASKED = [
    (RTIF, {"sql": "select", "n": 1}, {"sql": MASK, "n": MASK}, DataClass.RENDERED_FIELDS),
    (LABEL, "customer 7", MASK, DataClass.RENDERED_FIELDS),
    (
        STATE,
        {"state": "failed", "rendered_map_index": "customer 7"},
        {"state": "failed", "rendered_map_index": MASK},
        DataClass.RENDERED_FIELDS,
    ),
    (
        STATE,
        {"state": "up_for_retry", "retry_reason": "no such customer: 7"},
        {"state": "up_for_retry", "retry_reason": WITHHELD_TEXT},
        DataClass.EXCEPTION_TEXT,
    ),
    (
        STATE,
        {"state": "success", "outlet_events": [{"dest": 1, "extra": {"rows": 7}}]},
        {"state": "success", "outlet_events": [{"dest": 1, "extra": {"rows": MASK}}]},
        DataClass.ASSET_EVENT_EXTRA,
    ),
]


@pytest.mark.parametrize(("operation", "body", "masked", "data"), MASKED)
def test_what_an_agent_did_not_mask_is_masked(operation, body, masked, data):
    assert screen(operation, body) == (masked, {(data, Outcome.MASKED)})
    assert screen(operation, body, OPEN) == (body, {(data, Outcome.CROSSED)})


def test_what_a_deferred_task_carries_over_is_sealed_for_the_time_it_is_stored():
    body = {"state": "deferred", "trigger_kwargs": {"a": "x"}, "next_kwargs": {"b": "y"}}
    passed, found = screen(STATE, body)
    assert found == {(DataClass.TRIGGER_DATA, Outcome.MASKED)}
    arguments = carried.open_(KEYS, TASK, Carried.TRIGGER_ARGUMENTS, passed["trigger_kwargs"])
    assert (arguments, carried.open_next(KEYS, TASK, passed["next_kwargs"])) == ({"a": "x"}, {"b": "y"})
    assert screen(STATE, body, OPEN)[0] == body


def test_a_link_is_an_address_and_a_class_of_its_own():
    with pytest.raises(RefusedError, match="operator-links"):
        screen(XCOM, "https://example.com/x", key="_link_Where")
    links = Decision(open=frozenset({DataClass.OPERATOR_LINKS}))
    assert screen(XCOM, "https://example.com/x", links, key="_link_Where")[0] == "https://example.com/x"
    with pytest.raises(RefusedError, match="xcom-values"):
        screen(XCOM, "a value under a link's name", links, key="_link_Where")
    with pytest.raises(RefusedError, match="xcom-values"):
        screen(XCOM, "https://example.com/x", links)


def test_paths_of_another_store_are_references_where_it_is_configured():
    assert screen(XCOM, "gs://site/d/r/x", prefixes=["gs://site/"])[0] == "gs://site/d/r/x"
    for wrong in ("gs://site-of-others/x", "gs://site/x\nmore", "gs://site/" + "x" * 3000):
        with pytest.raises(RefusedError):
            screen(XCOM, wrong, prefixes=["gs://site/"])


def test_a_name_that_comes_twice_goes_on_as_it_was_understood():
    look = Look(decision=CLOSED, task=TASK, named={}, at_rest=KEYS)
    body = b'{"value": "secret", "value": {"__airflow_state_ref__": "s3://bucket/state/x"}}'
    passed = screened(STORE, body, look)
    assert b"secret" not in passed


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'"text"', b"7"])
def test_what_is_no_document_is_malformed(body):
    with pytest.raises(BodyError):
        screened(STATE, body, Look(decision=CLOSED, task=TASK, named={}, at_rest=KEYS))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(SCREENS)), ANY_JSON, st.sampled_from(["state", "conf", "value", "extra"]))
def test_whatever_is_sent_passes_is_refused_or_is_malformed(operation, value, name):
    for body in (value, {name: value, "outlet_events": [{"extra": value}], "next_kwargs": value}):
        look = Look(decision=CLOSED, task=TASK, named={"key": "_link_x"}, at_rest=KEYS)
        with contextlib.suppress(RefusedError, BodyError):
            json.loads(screened(operation, json.dumps(body).encode(), look))


@pytest.mark.parametrize("operation", GATES)
def test_an_operation_for_one_class_alone_is_closed_with_it(operation):
    assert gate(operation, CLOSED) is GATES[operation]
    assert gate(operation, OPEN) is None


def test_every_closable_field_of_the_table_is_enforced():
    """What can be closed has a screen or a gate."""
    always = CLOSED.open
    for crossing in EXECUTION:
        if crossing.data not in always:
            assert crossing.operation in {*SCREENS, *GATES, START}, crossing
