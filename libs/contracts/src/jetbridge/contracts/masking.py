"""
What is left of data whose class is closed. Pure, and each function gives back what it already masked.

Agents mask before they send; the gateway masks what came unmasked, or refuses it where a hash would not fit
any more. Both use these functions, so what an honest agent sends passes unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from jetbridge.contracts.boundary import DataClass, Decision

MASK = "***"
"""Stands for a value, as in Airflow's own masker."""

WITHHELD_TEXT = "[text withheld by the boundary policy 'exception-text'; the log at the site has it]"

DOC_FIELDS = frozenset({"doc", "doc_md", "doc_json", "doc_yaml", "doc_rst"})

SEALED = "jetbridge.sealed"
"""The one key of a document whose value only somebody with the key can read; see ``jetbridge.sealing``."""

_HEADER = "Traceback (most recent call last):"
_LINKS = frozenset(
    {
        "",
        "During handling of the above exception, another exception occurred:",
        "The above exception was the direct cause of the following exception:",
    }
)
_FRAME = re.compile(r'  File "[^"\n]{1,4096}", line \d+(?:, in [\w.<>]+)?')
_TYPED = re.compile(r"([A-Za-z_][\w.]{0,200})(?::.*)?", re.DOTALL)
_NAMED_ERROR = re.compile(
    r"([A-Za-z_][\w.]{0,200}(?:Error|Exception|Warning|Timeout|Exit|Interrupt))(?::.*)?", re.DOTALL
)

_OPERATOR_FIELDS = frozenset(
    [
        "allow_nested_operators",
        "autoscaling",
        "depends_on_past",
        "email",
        "email_on_failure",
        "email_on_retry",
        "end_date",
        "execution_timeout",
        "executor",
        "executor_config",
        "ignore_first_depends_on_past",
        "inlets",
        "map_index_template",
        "max_active_tis_per_dag",
        "max_active_tis_per_dagrun",
        "max_retry_delay",
        "multiple_outputs",
        "outlets",
        "owner",
        "params",
        "pool",
        "pool_slots",
        "priority_weight",
        "queue",
        "render_template_as_native_obj",
        "resources",
        "retries",
        "retry_delay",
        "retry_exponential_backoff",
        "run_as_user",
        "start_date",
        "start_from_trigger",
        "start_trigger_args",
        "task_display_name",
        "task_id",
        "trigger_rule",
        "wait_for_downstream",
        "wait_for_past_depends_before_skipping",
        "weight_rule",
    ]
)
"""Arguments every operator has and the scheduler acts on; in partial_kwargs all others are the task's."""


def masked_traceback(text: str) -> str:
    """
    Return a traceback with its types and places, without texts of exceptions and lines of source.

    A text that is no traceback keeps at most the name of an error in front of its first colon.
    """
    lines = text.split("\n")
    if _HEADER not in lines:
        named = _NAMED_ERROR.fullmatch(text)
        return f"{named[1]}: {WITHHELD_TEXT}" if named else (WITHHELD_TEXT if text.strip() else "")
    return "\n".join(_traceback_lines(lines))


def _traceback_lines(lines: Iterable[str]) -> Iterable[str]:
    inside = False
    for line in lines:
        if line == _HEADER:
            inside = True
            yield line
        elif (line in _LINKS and not inside) or (inside and _FRAME.fullmatch(line)):
            yield line
        elif inside and not line.startswith(" ") and (typed := _TYPED.fullmatch(line)):
            inside = False  # what follows is more of the exception's text
            yield f"{typed[1]}: {WITHHELD_TEXT}"


def masked_values(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the same names with masked values."""
    return dict.fromkeys(fields, MASK)


def masked_outlet_events(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return asset events of a task without their extras."""
    return [
        {**event, "extra": _masked_extra(event["extra"])} if event.get("extra") else event for event in events
    ]


def _masked_extra(extra: Any) -> Any:
    return masked_values(extra) if isinstance(extra, dict) else MASK


def mask_dag(data: dict[str, Any], decision: Decision) -> None:
    """Take what is closed out of a serialized Dag (Airflow 3.3, serialization version 3 and below)."""
    dag = data.get("dag")
    if not isinstance(dag, dict):
        return
    if not decision.is_open(DataClass.DAG_DOCS):
        _drop_docs(dag)
    if not decision.is_open(DataClass.TASK_ARGUMENTS):
        _mask_arguments(dag)


def _drop_docs(dag: dict[str, Any]) -> None:
    for fields in (dag, *_operators(dag)):
        for holder in (fields, fields.get("partial_kwargs")):
            if isinstance(holder, dict):
                for name in DOC_FIELDS & holder.keys():
                    del holder[name]
    for group in _groups(dag.get("task_group")):
        if group.get("tooltip"):
            group["tooltip"] = ""


def _mask_arguments(dag: dict[str, Any]) -> None:
    if "default_args" in dag:
        dag["default_args"] = {"__var": {}, "__type": "dict"}
    for fields in _operators(dag):
        _mask_operator(fields)
    for group in _groups(dag.get("task_group")):
        _mask_expansion(group, "expand_input")


def _mask_operator(fields: dict[str, Any]) -> None:
    if fields.get("start_from_trigger") is True:  # the plane itself starts its trigger, with its arguments
        return
    for name in fields.get("template_fields") or ():
        if name in fields:
            fields[name] = _masked(fields[name])
    for attribute in ("expand_input", "op_kwargs_expand_input"):
        _mask_expansion(fields, attribute)
    partial = fields.get("partial_kwargs")
    if isinstance(partial, dict):
        for name in partial.keys() - _OPERATOR_FIELDS - DOC_FIELDS:
            partial[name] = _masked(partial[name])


def _mask_expansion(holder: dict[str, Any], attribute: str) -> None:
    expansion = holder.get(attribute)
    if isinstance(expansion, dict) and "value" in expansion:
        expansion["value"] = _masked_mapped(expansion["value"])


def _masked_mapped(value: Any) -> Any:
    """Mask what a task is mapped over, and keep how many there are: the scheduler counts them."""
    if _type_of(value) == "dict":
        return {**value, "__var": {name: _counted(one) for name, one in value["__var"].items()}}
    return _masked(value)


def _counted(value: Any) -> Any:
    if _type_of(value) == "dict":
        return {**value, "__var": {str(number): MASK for number, _ in enumerate(value["__var"])}}
    return _masked(value)


def _masked(value: Any, depth: int = 0) -> Any:
    """
    Mask every leaf. References to XComs stay, since they say what depends on what.

    Names of arguments stay, too; keys of dictionaries further down may be data.
    """
    kind = _type_of(value)
    if kind == "xcomref" or value is None or isinstance(value, bool):
        return value
    if kind in {"dict", "tuple", "set"}:
        return {**value, "__var": _masked(value["__var"], depth)}
    if isinstance(value, list):
        return [_masked(one, depth) for one in value]
    if isinstance(value, dict) and kind is None and depth == 0:
        return {name: _masked(one, 1) for name, one in value.items() if name.isidentifier()}
    return _references_in(value) or MASK


def _references_in(value: Any) -> Any:
    """Return a list of the references to XComs somewhere in a value; empty when there are none."""
    if _type_of(value) == "xcomref":
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [reference for part in parts for reference in _references_in(part)]


def _type_of(value: Any) -> str | None:
    if isinstance(value, dict) and value.keys() == {"__type", "__var"}:
        kind = value["__type"]
        if not isinstance(kind, str):  # an agent may send anything, also what no dict has for a key
            return "other"
        holds = {"dict": dict, "tuple": list, "set": list}.get(kind)
        return kind if holds is None or isinstance(value["__var"], holds) else "other"
    return None


def _operators(dag: dict[str, Any]) -> list[dict[str, Any]]:
    tasks = dag.get("tasks")
    if not isinstance(tasks, list):
        return []
    found = [task.get("__var", task) for task in tasks if isinstance(task, dict)]
    return [fields for fields in found if isinstance(fields, dict)]


def _groups(group: Any) -> Iterable[dict[str, Any]]:
    if not isinstance(group, dict):
        return
    yield group
    children = group.get("children")
    for child in children.values() if isinstance(children, dict) else ():
        if isinstance(child, list) and len(child) == 2:
            yield from _groups(child[1])


def is_sealed(value: Any) -> bool:
    """Say whether a value is a sealed document, with nothing beside the seal."""
    return isinstance(value, dict) and value.keys() == {SEALED} and isinstance(value[SEALED], str)
