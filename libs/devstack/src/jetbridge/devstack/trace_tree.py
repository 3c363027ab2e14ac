"""A trace as edges to compare and as a tree to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from jetbridge.devstack.otlp import ReceivedSpan

Point = tuple[str, str]
"""A service and the name of a span of it."""


def edges(trace: Iterable[ReceivedSpan], root: str) -> set[tuple[Point, Point]]:
    """Return who is whose parent from the spans named ``root`` on, and how those hang on their own parent."""
    spans = list(trace)
    by_id = {span.id: span for span in spans}
    kept = [span for span in spans if any(above.name == root for above in _line(span, by_id))]
    return {(_point(by_id[span.parent]), _point(span)) for span in kept if span.parent in by_id}


def text(trace: Sequence[ReceivedSpan]) -> str:
    """Return the trace as an indented tree: span, service, kind, begin after the first, duration."""
    if not trace:
        return "(no span)"
    begun = min(span.start for span in trace)
    rows = [
        (
            f"{'  ' * depth}{span.name}",
            span.service,
            span.kind,
            f"{(span.start - begun) / 1e6:.0f}",
            f"{(span.end - span.start) / 1e6:.0f}",
        )
        for depth, span in _in_order(trace)
    ]
    head = ("span", "service", "kind", "at ms", "ms")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = (_aligned(row, widths) for row in [head, *rows])
    return "\n".join(line.rstrip() for line in lines)


def below(trace: Iterable[ReceivedSpan], name: str) -> list[ReceivedSpan]:
    """Return the first span of that name, what it hangs on, and everything below it."""
    spans = sorted(trace, key=lambda one: one.start)
    by_id = {span.id: span for span in spans}
    top = next(span for span in spans if span.name == name)
    kept = {one.id for one in _line(top, by_id)}
    return [span for span in spans if span.id in kept or top in _line(span, by_id)]


def _aligned(row: tuple[str, ...], widths: Sequence[int]) -> str:
    words = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
    return "  ".join([*words, *numbers])


def _in_order(trace: Sequence[ReceivedSpan]) -> Iterator[tuple[int, ReceivedSpan]]:
    known = {span.id for span in trace}
    children = defaultdict(list)
    for span in sorted(trace, key=lambda one: one.start):
        children[span.parent if span.parent in known else ""].append(span)

    def from_(parent: str, depth: int) -> Iterator[tuple[int, ReceivedSpan]]:
        for span in children[parent]:
            yield depth, span
            yield from from_(span.id, depth + 1)

    return from_("", 0)


def _line(span: ReceivedSpan, by_id: dict[str, ReceivedSpan]) -> Iterator[ReceivedSpan]:
    current: ReceivedSpan | None = span
    while current is not None:
        yield current
        current = by_id.get(current.parent)


def _point(span: ReceivedSpan) -> Point:
    return span.service, span.name
