"""What the gateway finds in parsing results whose agent did not mask."""

import pytest

from jetbridge.contracts.boundary import DataClass, Decision, decide
from jetbridge.contracts.dag_processing import ParsedDag, ParsingResult
from jetbridge.contracts.masking import MASK, masked_traceback
from jetbridge.contracts.packing import Packed, pack
from jetbridge.gateway.boundary import _closed_in

CLOSED = decide(lambda _data: None)


def packed(**fields):
    return pack(ParsingResult(fileloc="/d.py", **fields))


def dag(sql=MASK, **more):
    tasks = [{"__type": "operator", "__var": {"task_id": "t", "template_fields": ["sql"], "sql": sql}}]
    return (ParsedDag(data={"__version": 3, "dag": {"dag_id": "d", "tasks": tasks, **more}}),)


ROWS = {
    "an argument": (packed(dags=dag("private")), [DataClass.TASK_ARGUMENTS]),
    "docs": (packed(dags=dag(doc_md="private")), [DataClass.DAG_DOCS]),
    "both": (packed(dags=dag("x", doc_md="x")), [DataClass.TASK_ARGUMENTS, DataClass.DAG_DOCS]),
    "the text of an exception": (
        packed(import_errors={"a.py": "ValueError: private"}),
        [DataClass.EXCEPTION_TEXT],
    ),
    "source": (packed(source="private"), [DataClass.DAG_SOURCE]),
}


@pytest.mark.parametrize("what", ROWS)
def test_what_was_not_masked_is_found_and_nothing_else(what):
    result, classes = ROWS[what]
    assert _closed_in(result, CLOSED) == classes
    assert _closed_in(result, Decision(open=frozenset(DataClass))) == []


def test_what_an_honest_agent_sends_has_nothing_closed():
    errors = {"a.py": masked_traceback("ValueError: private")}
    assert _closed_in(packed(dags=dag(), import_errors=errors), CLOSED) == []


def test_what_nobody_can_read_is_left_to_the_bridge():
    assert _closed_in(Packed("0" * 64, b"rubbish"), CLOSED) == []


def test_what_is_nested_too_deeply_to_look_through_does_not_cross():
    value = "x"
    for _ in range(900):
        value = [value]
    assert DataClass.TASK_ARGUMENTS in _closed_in(packed(dags=dag(value)), CLOSED)
