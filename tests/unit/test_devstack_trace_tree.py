"""A trace as edges, as a tree, and in a document."""

import pytest

from jetbridge.devstack import trace_demo, trace_tree
from jetbridge.devstack.otlp import ReceivedSpan


def span(name, identity, parent="", start=0, service="s"):
    return ReceivedSpan(
        service=service,
        name=name,
        kind="internal",
        trace="t",
        id=identity,
        parent=parent,
        start=start * 1_000_000,
        end=(start + 5) * 1_000_000,
        failed=False,
        attributes={},
    )


TRACE = [
    span("c", "3", "2", 2, "other"),
    span("root", "1"),
    span("b", "4", "1", 7),
    span("a", "2", "1", 1),
]


def test_edges_from_a_span_on_with_what_it_hangs_on():
    assert trace_tree.edges(TRACE, "a") == {
        (("s", "root"), ("s", "a")),
        (("s", "a"), ("other", "c")),
    }


def test_one_branch_of_a_trace():
    assert [one.name for one in trace_tree.below(TRACE, "a")] == ["root", "a", "c"]


def test_the_tree_is_in_order_of_time():
    assert trace_tree.text(TRACE).splitlines() == [
        "span   service  kind      at ms  ms",
        "root   s        internal      0   5",
        "  a    s        internal      1   5",
        "    c  other    internal      2   5",
        "  b    s        internal      7   5",
    ]
    assert trace_tree.text([]) == "(no span)"


def test_a_span_whose_parent_is_missing_is_shown_as_a_root():
    assert trace_tree.text([span("lost", "9", "8")]).splitlines()[1].startswith("lost")


def test_a_document_gets_the_block_between_its_marks():
    document = f"before {trace_demo.BEGIN}old{trace_demo.END} after"
    assert trace_demo.replaced(document, "new") == f"before {trace_demo.BEGIN}\nnew\n{trace_demo.END} after"
    with pytest.raises(ValueError, match="has no"):
        trace_demo.replaced("no marks", "new")
