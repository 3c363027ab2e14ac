"""What is left of what is closed."""

import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.contracts.boundary import DataClass, Decision, decide
from jetbridge.contracts.masking import (
    MASK,
    WITHHELD_TEXT,
    mask_dag,
    masked_outlet_events,
    masked_traceback,
)

CLOSED = decide(lambda _data: None)
SECRET = "mk_3f9a"
REFERENCE = {"__type": "xcomref", "__var": {"task_id": "f", "key": "return_value"}}


def operator(**fields):
    return {
        "__type": "operator",
        "__var": {"task_id": "t", "template_fields": ["op_kwargs", "sql"], **fields},
    }


def masked(*tasks, **dag):
    data = {"__version": 3, "dag": {"dag_id": "d", "tasks": list(tasks), **dag}}
    mask_dag(data, CLOSED)
    again = json.loads(json.dumps(data))
    mask_dag(again, CLOSED)
    assert again == data, "masking twice changes something"
    assert SECRET not in json.dumps(data)
    return data["dag"]


def test_template_fields_lose_their_values_and_keep_their_shape():
    dag = masked(operator(sql=f"select {SECRET}", op_kwargs={"a": SECRET, "b": [1, SECRET], "c": None}))
    assert dag["tasks"][0]["__var"]["sql"] == MASK
    assert dag["tasks"][0]["__var"]["op_kwargs"] == {"a": MASK, "b": [MASK, MASK], "c": None}


def test_keys_further_down_are_data_too():
    dag = masked(operator(op_kwargs={"a": {SECRET: 1}, f"not a name {SECRET}": 1}))
    assert dag["tasks"][0]["__var"]["op_kwargs"] == {"a": MASK}


def test_what_the_scheduler_needs_stays():
    mapped = operator(
        _is_mapped=True,
        op_kwargs_expand_input={
            "type": "dict-of-lists",
            "value": {"__type": "dict", "__var": {"x": [SECRET, SECRET], "y": REFERENCE}},
        },
        partial_kwargs={
            "retries": 3,
            "queue": "gpu",
            "password": SECRET,
            "op_kwargs": {"__type": "dict", "__var": {"z": {"deep": [REFERENCE, SECRET]}}},
        },
    )
    fields = masked(mapped)["tasks"][0]["__var"]
    assert fields["op_kwargs_expand_input"]["value"]["__var"] == {"x": [MASK, MASK], "y": REFERENCE}
    assert fields["partial_kwargs"]["retries"] == 3
    assert fields["partial_kwargs"]["queue"] == "gpu"
    assert fields["partial_kwargs"]["password"] == MASK
    assert fields["partial_kwargs"]["op_kwargs"]["__var"] == {"z": [REFERENCE]}


def test_a_dictionary_that_is_mapped_over_keeps_its_size():
    over = {"__type": "dict", "__var": {"x": {"__type": "dict", "__var": {SECRET: SECRET, "b": 1}}}}
    fields = masked(operator(expand_input={"type": "dict-of-lists", "value": over}))["tasks"][0]["__var"]
    assert fields["expand_input"]["value"]["__var"]["x"]["__var"] == {"0": MASK, "1": MASK}


def test_lists_of_dictionaries_keep_their_length():
    over = [{"__type": "dict", "__var": {"sql": SECRET}}, {"__type": "dict", "__var": {"sql": SECRET}}]
    fields = masked(operator(expand_input={"type": "list-of-dicts", "value": over}))["tasks"][0]["__var"]
    assert fields["expand_input"]["value"] == [{"__type": "dict", "__var": {"sql": MASK}}] * 2


def test_docs_and_default_args_go():
    group = {"tooltip": SECRET, "children": {"g": ["taskgroup", {"tooltip": SECRET, "children": {}}]}}
    dag = masked(
        operator(doc_md=SECRET, partial_kwargs={"doc": SECRET}),
        doc_md=SECRET,
        default_args={"__type": "dict", "__var": {"token": SECRET}},
        task_group=group,
    )
    assert "doc_md" not in dag
    assert dag["task_group"]["tooltip"] == ""


def test_an_open_class_is_left_alone():
    data = {"dag": {"doc_md": SECRET, "tasks": [operator(sql=SECRET)]}}
    mask_dag(data, Decision(open=frozenset({DataClass.DAG_DOCS})))
    assert data["dag"]["doc_md"] == SECRET
    assert data["dag"]["tasks"][0]["__var"]["sql"] == MASK


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["__type", "__var", "dict", "value", "tasks", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(ANY_JSON)
def test_whatever_an_agent_sends_is_masked_or_left_and_never_crashes(value):
    for data in (
        {"dag": value},
        {"dag": {"tasks": value, "task_group": value}},
        {"dag": {"tasks": [operator(sql=value, expand_input=value, partial_kwargs=value)]}},
        {"dag": {"tasks": [operator(expand_input={"value": value})]}},
    ):
        mask_dag(data, CLOSED)


def error(text):
    try:
        try:
            raise ValueError(text)  # noqa: TRY301 - it has to be raised here
        except ValueError as first:
            raise KeyError(text) from first
    except KeyError:
        return traceback.format_exc()


@pytest.mark.parametrize("text", [SECRET, f"one\n{SECRET}\n  {SECRET}", f"{SECRET}: {SECRET}", ""])
def test_a_traceback_keeps_types_and_places(text):
    found = masked_traceback(error(text))
    assert SECRET not in found
    assert "ValueError: " in found
    assert "KeyError: " in found
    assert f'File "{__file__}", line ' in found
    assert "raise ValueError" not in found, "lines of source go, too"
    assert masked_traceback(found) == found


def test_a_text_that_is_no_traceback_keeps_the_type_at_most():
    assert masked_traceback(f"AirflowException: {SECRET}") == f"AirflowException: {WITHHELD_TEXT}"
    assert masked_traceback(f"could not {SECRET}") == WITHHELD_TEXT
    assert masked_traceback(f"{SECRET}") == WITHHELD_TEXT
    assert masked_traceback(WITHHELD_TEXT) == WITHHELD_TEXT
    assert masked_traceback("") == ""


def test_extras_of_asset_events():
    events = [{"extra": {"rows": SECRET}, "dest": 1}, {"extra": {}, "dest": 2}]
    assert masked_outlet_events(events) == [{"extra": {"rows": MASK}, "dest": 1}, {"extra": {}, "dest": 2}]
