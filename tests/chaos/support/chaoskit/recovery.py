"""How long it took until work went on after each fault: a table for people, a JSON file for machines."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Recoveries:
    """Seconds by scenario, in the order in which scenarios first reported."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unnoticed: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, scenario: str, seconds: float | None) -> None:
        """Note one burst; None says that no task noticed the fault, so there was nothing to recover."""
        if seconds is None:
            self.unnoticed[scenario] += 1
        else:
            self.seconds[scenario].append(seconds)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each scenario."""
        names = dict.fromkeys([*self.seconds, *self.unnoticed])
        return [self._row(name) for name in names]

    def _row(self, name: str) -> dict[str, Any]:
        measured = self.seconds.get(name, [])
        return {
            "scenario": name,
            "bursts": len(measured) + self.unnoticed.get(name, 0),
            "unnoticed": self.unnoticed.get(name, 0),
            "median_seconds": round(statistics.median(measured), 2) if measured else None,
            "worst_seconds": round(max(measured), 2) if measured else None,
        }

    def table(self) -> Iterator[str]:
        """Yield the lines of the table."""
        rows = self.rows()
        width = max((len(row["scenario"]) for row in rows), default=0)
        yield f"{'scenario':<{width}}  bursts  unnoticed  median    worst"
        for row in rows:
            median, worst = (_seconds(row[key]) for key in ("median_seconds", "worst_seconds"))
            yield f"{row['scenario']:<{width}}  {row['bursts']:>6}  {row['unnoticed']:>9}  {median}  {worst}"

    def write(self, path: Path, **facts: Any) -> None:
        """Write the rows, and whatever else is worth knowing about them, as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**facts, "rows": self.rows()}, indent=1) + "\n")


def _seconds(value: float | None) -> str:
    return "      -" if value is None else f"{value:>5.2f} s"
