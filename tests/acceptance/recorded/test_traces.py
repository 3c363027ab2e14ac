"""
One trace per attempt, from Airflow's Dag run to the last event, over every process that takes part.

Everything is real, the spans come by OTLP; where there is a Jaeger on PATH it has to say the same.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager, suppress

import pytest

from jetbridge.devstack import trace_tree

pytestmark = pytest.mark.slow

DAG_ID = "traced"
SECRET = b"m4rk3r-that-must-stay-here"
PATIENCE_SECONDS = 180
EVERY_DETAIL = {"airflow/task_span_detail_level": 2}
ATTEMPTS = Counter(make=1, take=1, fail=1, wait=2)  # one is deferred and resumed

SCHEDULER, API, GATEWAY = "airflow-scheduler", "airflow-api-server", "jetbridge-gateway"
WORKER, TASK, TRIGGERER = "jetbridge-worker", "jetbridge-task", "jetbridge-triggerer"
PROXIED = "/execution/{path:path}"
ACCEPT, REPORT = "POST /v1/leases/{lease}/accept", "POST /v1/leases/{lease}/report"
LEASED, FINISHED = "send event.workload.leased", "send event.workload.finished"
EVENT = "process event.workload.*"


def edges_of(task):
    """What an attempt's trace consists of: (parent, child), each as service and span."""
    own = f"worker.{task}"
    return {
        ((SCHEDULER, "dag_run.traced"), (API, f"task_run.{task}")),
        ((API, f"task_run.{task}"), (SCHEDULER, "send WORK")),
        ((SCHEDULER, "send WORK"), (GATEWAY, "process WORK")),
        ((GATEWAY, "process WORK"), (WORKER, "worker.attempt")),
        ((WORKER, "worker.attempt"), (WORKER, ACCEPT)),
        ((WORKER, ACCEPT), (GATEWAY, ACCEPT)),
        ((GATEWAY, ACCEPT), (GATEWAY, LEASED)),
        ((GATEWAY, LEASED), (SCHEDULER, EVENT)),
        ((WORKER, "worker.attempt"), (WORKER, "worker.run")),
        ((WORKER, "worker.run"), (GATEWAY, f"PATCH {PROXIED}")),
        ((WORKER, "worker.run"), (TASK, own)),
        ((TASK, own), (GATEWAY, f"PUT {PROXIED}")),
        ((GATEWAY, f"PUT {PROXIED}"), (GATEWAY, "PUT /execution/task-instances/…")),
        ((GATEWAY, f"PATCH {PROXIED}"), (GATEWAY, "PATCH /execution/task-instances/…")),
        ((WORKER, "worker.run"), (WORKER, "log upload")),
        ((WORKER, "worker.attempt"), (WORKER, REPORT)),
        ((WORKER, REPORT), (GATEWAY, REPORT)),
        ((GATEWAY, REPORT), (GATEWAY, FINISHED)),
        ((GATEWAY, FINISHED), (SCHEDULER, EVENT)),
    }


def of_the_task(task, *children):
    own = (TASK, f"worker.{task}")
    calls = {
        (GATEWAY, f"{method} {PROXIED}"): (GATEWAY, f"{method} /execution/{kind}/…")
        for method, kind in (("POST", "xcoms"), ("GET", "xcoms"))
    }
    return {(own, child) for child in children} | {(one, calls[one]) for one in children if one in calls}


PUT_XCOM = ((TASK, "xcom put"), (GATEWAY, f"POST {PROXIED}"))
GET_XCOM = ((TASK, "xcom get"), (GATEWAY, f"GET {PROXIED}"))
STATE = (GATEWAY, f"PATCH {PROXIED}")
HEARTBEAT = ((WORKER, "worker.run"), (GATEWAY, f"PUT {PROXIED}"))  # when one is due; the others always are

EXPECTED = {
    "make": edges_of("make") | of_the_task("make", *PUT_XCOM, STATE),
    "take": edges_of("take") | of_the_task("take", *GET_XCOM, *PUT_XCOM, STATE),
    "wait": edges_of("wait")
    | of_the_task("wait", STATE)
    | {
        ((API, "task_run.wait"), (TRIGGERER, "trigger.wait")),
        ((API, "task_run.wait"), (TRIGGERER, "log upload")),
    },
}


@pytest.fixture(scope="module")
def runs(collector, stack):
    """
    The spans of an ordinary run, and of one with all details, in which Airflow records exceptions.

    The stack ends with it: only then has everything been exported that could be searched.
    """
    with ending(stack):
        stack.client.unpause(DAG_ID)
        run_ids = [stack.client.trigger(DAG_ID, conf) for conf in ({}, EVERY_DETAIL)]
        assert [stack.await_run(DAG_ID, one, timeout_seconds=PATIENCE_SECONDS) for one in run_ids] == [
            "failed"
        ] * 2
        return [complete(collector, run_id) for run_id in run_ids]


@contextmanager
def ending(stack):
    try:
        yield
    finally:
        stack.__exit__(None, None, None)


def complete(collector, run_id):
    """Wait for all spans of a run: the last of each attempt come after its end."""
    spans = collector.wait(lambda spans: is_complete(trace_of(spans, run_id)), PATIENCE_SECONDS)
    assert is_complete(trace_of(spans, run_id)), trace_tree.text(trace_of(spans, run_id))
    return trace_of(spans, run_id)


def trace_of(spans, run_id):
    roots = [
        one for one in spans if not one.parent and one.attributes.get("airflow.dag_run.run_id") == run_id
    ]
    return [one for one in spans if roots and one.trace == roots[0].trace]


def is_complete(trace):
    names = Counter((one.service, one.name) for one in trace)
    attempts = ATTEMPTS.total()
    return (
        names[SCHEDULER, EVENT] >= 2 * attempts
        and names[WORKER, "log upload"] == attempts
        and names[WORKER, "worker.attempt"] == attempts
        and names[TRIGGERER, "log upload"] == 1
        and all(names[API, f"task_run.{task}"] == 1 for task in ATTEMPTS)
    )


@pytest.mark.parametrize("task", sorted(EXPECTED))
def test_an_attempt_is_one_trace_with_exactly_these_edges(runs, task):
    trace = runs[0]
    assert trace_tree.edges(trace, f"task_run.{task}") - {HEARTBEAT} == EXPECTED[task], trace_tree.text(trace)


def test_a_resumed_task_has_both_attempts_and_its_trigger_in_one_trace(runs):
    trace = runs[0]
    (task_run,) = [one for one in trace if one.name == "task_run.wait"]
    below = Counter(one.name for one in trace if one.parent == task_run.id)
    assert below == {"send WORK": 2, "trigger.wait": 1, "log upload": 1}


def test_every_service_says_what_it_takes_part_in(runs):
    assert {(one.service, one.kind) for one in runs[0]} == {
        (SCHEDULER, "internal"),
        (SCHEDULER, "producer"),
        (SCHEDULER, "consumer"),
        (API, "internal"),
        (GATEWAY, "server"),
        (GATEWAY, "client"),
        (GATEWAY, "producer"),
        (GATEWAY, "consumer"),
        (WORKER, "internal"),
        (WORKER, "client"),
        (TASK, "internal"),
        (TASK, "client"),
        (TRIGGERER, "internal"),
        (TRIGGERER, "client"),
    }


def test_attributes_follow_the_conventions(runs):
    for one in runs[0]:
        if one.kind in {"producer", "consumer"}:
            assert one.attributes["messaging.system"] == "nats"
            assert one.attributes["messaging.operation.type"] in {"send", "process"}
            assert one.attributes["messaging.destination.name"]
        elif one.name.split()[0] in {"GET", "PUT", "PATCH", "POST"}:
            assert one.attributes["http.request.method"] == one.name.split()[0]
            assert one.attributes["http.response.status_code"] < 500
            where = "http.route" if one.kind == "server" else "url.template"
            assert one.name.endswith(one.attributes[where])


def test_what_must_not_cross_the_boundary_is_in_no_span(runs, collector):
    errors = [body for body in collector.raw if b"exception.type" in body]
    assert runs
    assert errors, "without an exception in the traces this test shows nothing"
    assert [body for body in collector.raw if SECRET in body] == []


def test_a_parse_is_a_trace_from_the_parser_to_the_bridge(runs, collector):
    assert runs
    (parse, *_) = [one for one in collector.spans if one.name == "dag_processor.parse"]
    trace = [one for one in collector.spans if one.trace == parse.trace]
    path = "POST /v1/agents/{name}/bundles/parsed"
    rpc = "rpc.dag-processing.file-parsed"
    assert trace_tree.edges(trace, parse.name) == {
        (("jetbridge-dag-processor", parse.name), ("jetbridge-dag-processor", path)),
        (("jetbridge-dag-processor", path), (GATEWAY, path)),
        ((GATEWAY, path), (GATEWAY, f"request {rpc}")),
        ((GATEWAY, f"request {rpc}"), ("jetbridge-bridge", f"process {rpc}")),
    }


PLANTED_IN_ATTRIBUTES = ("value", "password", "secret", "token", "message", "stacktrace", "rendered", "sql")


def test_attributes_are_ids_names_routes_and_sizes(runs, collector):
    """Section 6 of the design: whatever can hold a value has no attribute of its own, in any process."""
    assert runs
    names = {name for one in collector.spans for name in one.attributes}
    assert len(names) > 20
    assert [name for name in names if name.rpartition(".")[2] in PLANTED_IN_ATTRIBUTES] == []


def lines_of(directory, pattern, lease):
    """The JSON lines about a lease in the logs of some processes."""
    found = []
    for file in (directory / "logs").glob(pattern):
        for text in file.read_text().splitlines():
            with suppress(ValueError):
                found.append(json.loads(text))
    return [line for line in found if isinstance(line, dict) and line.get("lease") == lease]


def of_the_fork_server(line):
    """It speaks of many leases, in no trace, and names them; a lease begins with the task instance's id."""
    return line.get("logger") == "jetbridge.worker.forkserver_client"


@pytest.mark.parametrize("task", ["make", "take", "fail"])
def test_lines_of_logs_are_found_by_the_ids_of_an_attempt(runs, stack, task):
    (attempt,) = [
        one for one in runs[0] if one.name == "worker.attempt" and one.attributes["airflow.task_id"] == task
    ]
    lease = attempt.attributes["jetbridge.lease"]
    directory = stack.directory
    agent = [line for line in lines_of(directory, "agent-works.log", lease) if not of_the_fork_server(line)]
    ids = {"agent": "works", "ti_id": lease.partition(".")[0], "trace_id": attempt.trace}
    for line in agent:
        assert {name: line.get(name) for name in ids} == ids, line
        assert {"event", "level", "timestamp"} <= line.keys()
    # The agent's own lines and the supervisor's, which Airflow writes in another process.
    assert {"service" in line for line in agent} == {True, False}
    # In a poll, which is in no trace, a gateway speaks of many leases, too.
    gateways = [line for line in lines_of(directory, "gateway-*.log", lease) if "trace_id" in line]
    assert {(line["trace_id"], line["agent"]) for line in gateways} == {(attempt.trace, "works")}


def test_metrics_arrive_too_with_what_the_run_did(runs, collector):
    """By OTLP, from every service, at the latest when it ended; under the names that /metrics has."""
    assert runs
    last = {(p.service, p.instance, p.name, *p.attributes.items()): p for p in collector.points}
    services = {point.service for point in last.values()}
    assert services >= {
        "jetbridge-gateway",
        "jetbridge-bridge",
        "jetbridge-router",
        "jetbridge-sentinel",
        "jetbridge-worker",
        "jetbridge-triggerer",
        "jetbridge-dag-processor",
    }
    total, count = Counter(), Counter()
    for point in last.values():
        total[point.name] += point.value
        count[point.name] += point.count
    attempts = total["jetbridge_gateway_accepted_leases"]
    assert attempts >= 2 * ATTEMPTS.total()  # other files' attempts came before
    # Not of an accept that is faster than the mirror of the gateway that takes it.
    assert 0 < count["jetbridge_gateway_accept_delay_seconds"] <= attempts
    assert count["jetbridge_gateway_handover_delay_seconds"] == attempts
    assert count["jetbridge_worker_task_startup_seconds"] == attempts
    assert total["jetbridge_gateway_taken_heartbeats"] > 0
    assert total["jetbridge_worker_xcom_bytes"] > 2 * len(SECRET)
    assert total["jetbridge_worker_uploaded_log_bytes"] > 0
    assert total["jetbridge_triggerer_uploaded_log_bytes"] > 0
    assert count["jetbridge_dag_processor_parse_seconds"] > 0
    assert [body for body in collector.raw_metrics if SECRET in body] == []


def test_jaeger_shows_the_same(runs, collector, jaeger):
    for body in collector.raw:
        jaeger.take(body)
    trace = runs[0]
    shown = jaeger.trace(trace[0].trace, len(trace))
    services = {name: process["serviceName"] for name, process in shown["processes"].items()}
    spans = {one["spanID"]: (services[one["processID"]], one["operationName"]) for one in shown["spans"]}
    found = {
        (spans[reference["spanID"]], spans[one["spanID"]])
        for one in shown["spans"]
        for reference in one["references"]
    }
    assert found == trace_tree.edges(trace, "dag_run.traced")
