"""``jetbridge dev trace``: runs the example with a collector and prints the trace of one of its attempts."""

from __future__ import annotations

import argparse
from pathlib import Path

from jetbridge.devstack import orders, trace_tree
from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.home import workspace
from jetbridge.devstack.otlp import Collector, ReceivedSpan
from jetbridge.devstack.stack import DevStack, StackOptions

_RUN_SECONDS = 180.0
_LAST_SPANS_SECONDS = 30.0
BEGIN, END = "<!-- jetbridge dev trace -->", "<!-- end -->"


def main(argv: list[str]) -> int:
    """Print the trace, or write it into a document between its two marks."""
    parser = argparse.ArgumentParser(prog="jetbridge dev trace", description=__doc__)
    parser.add_argument("--task", default="regions", help="whose attempt to show")
    parser.add_argument("--into", type=Path, help="a document that has the two marks")
    options = parser.parse_args(argv)
    shown = trace_tree.text(trace_tree.below(_run(options.task), f"task_run.{options.task}"))
    if options.into is None:
        print(shown)  # noqa: T201 - the command's answer
    else:
        options.into.write_text(replaced(options.into.read_text(), f"```text\n{shown}\n```"))
    return 0


def replaced(document: str, block: str) -> str:
    """Return a document with the block between its marks replaced; raises ``ValueError`` without marks."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def _run(task: str) -> list[ReceivedSpan]:
    agents = (
        AgentSpec(name="works", queues=("default", "gpu"), slots=4, environment=orders.agent_environment),
        AgentSpec(name="waits", role="triggerer", queues=(), slots=10, environment=orders.agent_environment),
    )
    with Collector() as collector:
        options = StackOptions(
            dags=workspace() / "examples" / "dags",
            agents=agents,
            isolate=False,  # else the agent could not reach the collector
            otlp_endpoint=collector.endpoint,
            label="trace",
        )
        with DevStack(options) as stack:
            stack.client.await_dag(orders.DAG_ID)
            stack.client.unpause(orders.DAG_ID)
            run_id = stack.client.trigger(orders.DAG_ID)
            stack.await_run(orders.DAG_ID, run_id, timeout_seconds=_RUN_SECONDS)
            return collector.wait(lambda spans: _is_complete(spans, task), _LAST_SPANS_SECONDS)


def _is_complete(spans: list[ReceivedSpan], task: str) -> bool:
    roots = [span.name for span in spans if not span.parent]
    return f"dag_run.{orders.DAG_ID}" in roots and any(span.name == f"worker.{task}" for span in spans)
