"""``make demo``: starts the whole system, runs the example through it, and shows what happened where."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jetbridge.devstack import attempts, orders, whereabouts
from jetbridge.devstack.agents import Agent, AgentSpec
from jetbridge.devstack.attempts import Attempt
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.home import workspace
from jetbridge.devstack.isolation import address_of, reachable_from
from jetbridge.devstack.processes import Say
from jetbridge.devstack.stack import DevStack, StackOptions

_RUN_SECONDS = 180.0
_PUSH_SECONDS = 60.0
_LOG_SECONDS = 30.0
_CHECK_SECONDS = 1.0
_COMMIT = 10
"""Letters of a commit that are shown."""

_FILE_COLUMNS = 170
"""Width of the tables where the output is no terminal that has one; references are long."""

AGENTS = (
    AgentSpec(name="east", queues=("default",), slots=4, site="east", environment=orders.agent_environment),
    AgentSpec(
        name="west", queues=("default", "gpu"), slots=4, site="west", environment=orders.agent_environment
    ),
    AgentSpec(name="parser", role="dag-processor", queues=(), site="east"),
    AgentSpec(name="waiter", role="triggerer", queues=(), slots=100, site="east"),
    AgentSpec(name="east-sentinel", role="sentinel", queues=(), site="east"),
    AgentSpec(name="west-sentinel", role="sentinel", queues=(), site="west"),
)
_TAGS, _CHANGED_TAGS = 'tags=["example"]', 'tags=["example", "pushed"]'


def main(argv: list[str]) -> int:
    """Run the demo; returns 0 after success, 1 with the reason on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="jetbridge dev demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the Dag instead of staying up")
    once: bool = parser.parse_args(argv).once
    signal.signal(signal.SIGTERM, _interrupt)  # so that `kill` stops everything in order, like Ctrl-C
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = _FILE_COLUMNS
    try:
        _run(console, stay=not once)
    except DevStackError as exc:
        print(f"\nThe demo failed: {exc}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 1
    except KeyboardInterrupt:
        return 130 if once else 0  # without --once, this is how it ends
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(console: Console, *, stay: bool) -> None:
    start = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - start:5.1f} s[/dim]  {line}")

    options = StackOptions(dags=workspace() / "examples" / "dags", agents=AGENTS, git=True, label="demo")
    with DevStack(options, say=say) as stack:
        _show_isolation(stack, say)
        _show_parsing(stack, say)
        run_id = _run_dag(stack, say)
        _show_waits(stack, say, run_id)
        rows = attempts.of_run(stack.client, stack.database_url, orders.DAG_ID, run_id)
        console.print(*_tables(rows), sep="\n")
        _verify(stack, run_id)
        say("the report agrees with an independent computation")
        _show_push(stack, say)
        say(f"logs of every process: {stack.directory / 'logs'}")
        if stay:
            say(f"[bold]Airflow's UI: {stack.airflow.url}[/bold] (no login; Ctrl-C ends everything)")
            _stay(stack)


def _show_isolation(stack: DevStack, say: Say) -> None:
    if stack.not_isolated_because:
        say(f"agents share this machine's network ({stack.not_isolated_because}); as root they would not")
        return
    plane_only = {
        "PostgreSQL": address_of(stack.database_url),
        "NATS": address_of(stack.nats.url),
        "Redis": address_of(stack.redis.url),
        "Airflow": address_of(stack.airflow.url),
    }
    for name, agent in stack.agents.items():
        reached = reachable_from(agent, plane_only | {"the gateway": address_of(stack.gateway_url)})
        opened = [server for server in plane_only if reached[server]]
        if opened or not reached["the gateway"]:
            msg = f"agent {name} should reach the gateway alone, but reaches {reached}"
            raise DevStackError(msg)
        say(f"agent {name} in namespace {_namespace(agent)} reaches the gateway, not {', '.join(plane_only)}")


def _namespace(agent: Agent) -> str:
    return agent.namespace.name if agent.namespace else "of this machine"


def _show_parsing(stack: DevStack, say: Say) -> None:
    stack.client.await_dag(orders.DAG_ID)
    commit, parsers = whereabouts.commit_of(stack.client, orders.DAG_ID), whereabouts.parsers(stack.client)
    say(f"Dag {orders.DAG_ID} was parsed by agent {', '.join(parsers)} at commit {commit[:_COMMIT]}")
    code = stack.client.get(f"dagSources/{orders.DAG_ID}")["content"].strip().splitlines()
    say(f"  the Code tab says: {escape(code[-1].removeprefix('# '))}")


def _run_dag(stack: DevStack, say: Say) -> str:
    stack.client.unpause(orders.DAG_ID)
    run_id = stack.client.trigger(orders.DAG_ID)
    say(f"triggered Dag {orders.DAG_ID}, run {run_id}")
    told: set[tuple[str, int]] = set()

    def tell() -> None:
        stack.check_alive()
        for one in stack.client.task_instances(orders.DAG_ID, run_id):
            key = (one["task_id"], one["map_index"])
            if one["state"] == "success" and key not in told:
                told.add(key)
                say(
                    f"  {one['task_id']} {'' if key[1] < 0 else f'[{key[1]}] '}succeeded on {one['hostname']}"
                )

    state = stack.await_run(orders.DAG_ID, run_id, timeout_seconds=_RUN_SECONDS, check=tell)
    say(f"the run ended: {state}")
    if state != "success":
        raise DevStackError(_why(stack, run_id))
    return run_id


def _show_waits(stack: DevStack, say: Say, run_id: str) -> None:
    waits = stack.client.wait(  # the log of a trigger is uploaded when it has ended, aside
        lambda: whereabouts.waits_of_run(stack.client, stack.s3, orders.DAG_ID, run_id),
        "the log of a trigger",
        timeout_seconds=_LOG_SECONDS,
        check=stack.check_alive,
    )
    for wait in waits:
        say(f"{wait.task_id} waited in triggerer {wait.triggerer}, not on a worker; log: {wait.log_uri}")


def _show_push(stack: DevStack, say: Say) -> None:
    if stack.git is None:
        return
    file = stack.git.clone / f"{orders.DAG_ID}.py"
    file.write_text(file.read_text().replace(_TAGS, _CHANGED_TAGS))
    commit, pushed = stack.git.push("Tag the example"), time.monotonic()

    def shows() -> bool:
        tags = {tag["name"] for tag in stack.client.get(f"dags/{orders.DAG_ID}")["tags"]}
        return "pushed" in tags and whereabouts.commit_of(stack.client, orders.DAG_ID) == commit

    stack.client.wait(shows, "the pushed Dag to show", timeout_seconds=_PUSH_SECONDS, check=stack.check_alive)
    seconds = time.monotonic() - pushed
    say(f"git push of a changed Dag, commit {commit[:_COMMIT]}: the UI has it {seconds:.1f} s later")


def _why(stack: DevStack, run_id: str) -> str:
    instances = stack.client.task_instances(orders.DAG_ID, run_id)
    failed = [f"{one['task_id']} on {one['hostname']}" for one in instances if one["state"] == "failed"]
    return f"run {run_id} failed at {', '.join(failed)}; logs are in {stack.directory}"


def _tables(rows: Sequence[Attempt]) -> Iterable[Table]:
    attempts_table = Table(title="Every attempt", title_justify="left")
    for heading in ("task", "try", "queue", "agent", "state"):
        attempts_table.add_column(heading, no_wrap=True)
    for heading in ("queued→started", "duration"):
        attempts_table.add_column(heading, justify="right", no_wrap=True)
    results = Table(title="What the plane keeps of each result", title_justify="left")
    results.add_column("task", no_wrap=True)
    results.add_column("XCom", overflow="fold")
    for row in rows:
        waited, took = _duration(row.queued_to_started_seconds), _duration(row.duration_seconds)
        state = f"[{'green' if row.state == 'success' else 'yellow'}]{row.state}[/]"
        task = escape(row.label)
        attempts_table.add_row(task, str(row.try_number), row.queue, row.agent, state, waited, took)
        if row.xcom:
            results.add_row(task, escape(row.xcom))
    return attempts_table, results


def _duration(seconds: float | None) -> str:
    if (
        seconds is None or seconds < 0
    ):  # of a task that went on after its trigger, Airflow keeps the first start
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _verify(stack: DevStack, run_id: str) -> None:
    if wrong := orders.differences(stack.s3, run_id):
        msg = f"the report is wrong: {'; '.join(wrong)}"
        raise DevStackError(msg)


def _stay(stack: DevStack) -> None:
    while True:
        stack.check_alive()
        time.sleep(_CHECK_SECONDS)  # until Ctrl-C; a process that dies meanwhile ends the demo with its log
