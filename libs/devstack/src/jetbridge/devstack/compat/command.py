"""``jetbridge dev compat``: run both sides, and report."""

from __future__ import annotations

import argparse
import fnmatch
import time
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from jetbridge.devstack.compat import corpus, side
from jetbridge.devstack.compat.comparison import Observation, differences_of_parsing, differences_of_runs


def main(argv: list[str]) -> int:
    """Compare; returns 0 when both sides agree and 1 when something differs."""
    parser = argparse.ArgumentParser(prog="jetbridge dev compat", description=__doc__)
    parser.add_argument("--only", default="*", help="run only Dags whose id matches; all are parsed")
    only: str = parser.parse_args(argv).only
    console = Console(soft_wrap=True, highlight=False)
    start = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - start:5.0f} s[/dim]  {line}")

    def chosen(dag_id: str) -> bool:
        return fnmatch.fnmatch(dag_id, only)

    with side.local(say) as stack:
        files = side.parsed_files(stack)
        theirs = side.observe(stack, chosen, say)
    with side.remote(say, files) as stack:
        ours = side.observe(stack, chosen, say)
    lines = list(report(theirs, ours))
    console.print("", *map(escape, lines), sep="\n")
    return 1 if any(line.startswith("DIFFERS") for line in lines) else 0


def report(local: Observation, remote: Observation) -> Iterable[str]:
    """Yield the lines of the report; those that name a difference begin with DIFFERS."""
    yield f"Parsed remotely as locally: {len(local.dags)} Dags, {len(local.import_errors)} import errors"
    for file, trace in sorted(local.import_errors.items()):
        yield f"  {file}: {trace.strip().splitlines()[-1]} (on both sides)"
    for dag_id, (fields, why) in corpus.VOLATILE_FIELDS.items():
        yield f"  {dag_id}: compared without {', '.join(sorted(fields))}: {why}"
    volatile = {dag_id: fields for dag_id, (fields, _) in corpus.VOLATILE_FIELDS.items()}
    for difference in differences_of_parsing(local, remote, volatile):
        yield f"DIFFERS  {difference}"
    yield f"Run remotely as with LocalExecutor: {len(local.outcomes)} Dags"
    for dag_id, outcome in sorted(remote.outcomes.items()):
        yield f"  {dag_id}: {outcome.state}, {len(outcome.tasks)} task instances"
    for dag_id, (tasks, why) in corpus.LEFT_WAITING.items():
        yield f"  {dag_id}: not waited for {next(iter(tasks))}, which {why}"
    for difference in differences_of_runs(local, remote):
        yield f"DIFFERS  {difference}"
    yield f"Not run: {len(corpus.NOT_RUN)} Dags"
    for dag_id, why in sorted(corpus.NOT_RUN.items()):
        yield f"  {dag_id}: {why}"
