"""
The example Dag through the whole system: real servers, real Airflow, two gateways, HTTPS.

Two workers, a Dag processor that reads a Git repository, a triggerer; not one Dag on the plane.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from urllib.parse import unquote

import pytest

from jetbridge.devstack import attempts, orders, whereabouts
from jetbridge.devstack.demo import AGENTS
from jetbridge.devstack.isolation import address_of, environments_of, reachable_from

pytestmark = pytest.mark.slow

RUN_SECONDS = 240
MIB = 1024 * 1024
ORDER_REGIONS = 4


@pytest.fixture(scope="module")
def stack(site):
    return site


@pytest.fixture(scope="module")
def run_id(stack):
    stack.client.await_dag(orders.DAG_ID)
    stack.client.unpause(orders.DAG_ID)
    run_id = stack.client.trigger(orders.DAG_ID)
    state = stack.await_run(orders.DAG_ID, run_id, timeout_seconds=RUN_SECONDS)
    assert state == "success", stack.client.task_instances(orders.DAG_ID, run_id)
    return run_id


@pytest.fixture(scope="module")
def rows(stack, run_id):
    return attempts.of_run(stack.client, stack.database_url, orders.DAG_ID, run_id)


def test_the_report_agrees_with_an_independent_computation(stack, run_id):
    assert orders.differences(stack.s3, run_id) == []


def test_a_wrong_report_would_be_noticed(stack, run_id, monkeypatch):
    real = orders.read_object

    def read_with_a_cent_too_many(store, key, bucket=orders.BUCKET):
        data = real(store, key, bucket)
        if not key.endswith("report.json"):
            return data
        report = json.loads(data)
        report["euro_cents"]["japan"] += 100
        report["suspects"].pop()
        return json.dumps(report).encode()

    monkeypatch.setattr(orders, "read_object", read_with_a_cent_too_many)
    wrong = orders.differences(stack.s3, run_id)
    assert len(wrong) == 2
    assert "japan" in wrong[0]


def test_every_task_ran_once_but_the_one_that_fails_once(rows):
    tries = Counter(row.task_id for row in rows)
    assert tries == {
        "ingest": 1,
        "load": 1,
        "regions": 1,
        "summarize": ORDER_REGIONS,
        "rates_are_out": 1,
        "exchange_rates": 2,
        "find_fraud": 1,
        "report": 1,
    }
    assert [(row.try_number, row.state) for row in rows if row.task_id == "exchange_rates"] == [
        (1, "failed"),
        (2, "success"),
    ]
    assert {row.state for row in rows if row.task_id != "exchange_rates"} == {"success"}


def test_every_task_ran_on_an_agent_that_serves_its_queue(rows):
    queues = {agent.name: agent.queues for agent in AGENTS}
    assert all(row.queue in queues[row.agent] for row in rows)
    assert [row.agent for row in rows if row.queue == "gpu"] == ["west"]


def test_the_deferrable_sensor_waited_in_the_triggerer(stack, run_id, rows):
    assert rows
    stack.client.wait(
        lambda: whereabouts.waits_of_run(stack.client, stack.s3, orders.DAG_ID, run_id),
        "the log of the trigger",
        timeout_seconds=RUN_SECONDS,
    )
    (wait,) = whereabouts.waits_of_run(stack.client, stack.s3, orders.DAG_ID, run_id)
    assert (wait.task_id, wait.triggerer) == ("rates_are_out", "waiter")


def test_no_dag_file_is_on_the_plane(stack, run_id):
    assert stack.airflow.dag_processor is None
    assert whereabouts.parsers(stack.client) == ["parser"]
    run = stack.client.get(f"dags/{orders.DAG_ID}/dagRuns/{run_id}")
    assert run["bundle_version"] == whereabouts.commit_of(stack.client, orders.DAG_ID)
    assert not list((stack.directory / "airflow").rglob("orders*"))
    for process in (stack.airflow.api_server, stack.airflow.scheduler, stack.failover["bridge"]):
        assert process.command.env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] == "[]"


def test_the_plane_keeps_references_and_the_values_are_in_object_storage(stack, run_id):
    stored = attempts.xcom_rows(stack.database_url, orders.DAG_ID, run_id)
    assert len(stored) == 10
    sizes = {}
    for (task_id, map_index), value in stored.items():
        reference = json.loads(value) if isinstance(value, str) else value
        assert "jetbridge.xcom" in reference, (task_id, value)
        bucket, _, key = reference["uri"].removeprefix("s3://").partition("/")
        assert len(orders.read_object(stack.s3, key, bucket)) == reference["bytes"]
        assert unquote(key).startswith(f"{orders.DAG_ID}/{run_id}/{task_id}/{map_index}/")
        sizes[task_id, map_index] = len(json.dumps(reference))
    assert max(sizes.values()) < 1024


def test_an_xcom_of_more_than_a_mebibyte_went_through(stack, run_id):
    stored = attempts.xcom_rows(stack.database_url, orders.DAG_ID, run_id)["load", -1]
    reference = json.loads(stored) if isinstance(stored, str) else stored
    bucket, _, key = reference["uri"].removeprefix("s3://").partition("/")
    data = orders.read_object(stack.s3, key, bucket)
    assert len(gzip.decompress(data) if reference["encoding"] == "gzip" else data) > MIB


def test_no_secret_of_the_plane_is_with_an_agent(stack, rows):
    assert rows  # the agents have run tasks, so their fork servers exist
    passwords = [url.split("@")[0].rpartition(":")[2] for url in (stack.nats.url, stack.redis.url)]
    passwords.append(stack.database_url.split("@")[0].rpartition(":")[2])
    secrets = [*passwords, *stack.secrets.values]
    plane_only = ("JETBRIDGE_NATS", "JETBRIDGE_REDIS", "JETBRIDGE_GATEWAY_", "AIRFLOW__API_AUTH", "FERNET")
    for agent in stack.agents.values():
        for environment in environments_of(agent):
            text = json.dumps(environment)
            assert not [secret for secret in secrets if secret in text]
            assert not [name for name in environment if name.startswith(plane_only) or "FERNET" in name]


def test_agents_reach_the_gateway_alone(stack):
    if stack.not_isolated_because:
        pytest.skip(f"no network namespaces here: {stack.not_isolated_because}")
    addresses = {
        "gateway": address_of(stack.gateway_url),
        "postgres": address_of(stack.database_url),
        "nats": address_of(stack.nats.url),
        "redis": address_of(stack.redis.url),
        "airflow": address_of(stack.airflow.url),
    }
    for agent in stack.agents.values():
        reached = reachable_from(agent, addresses)
        assert [name for name, answered in reached.items() if answered] == ["gateway"]


def test_the_log_tab_names_the_agent_and_the_place_of_every_attempt(stack, run_id, rows):
    for row in rows:
        answer = stack.client.get(
            f"dags/{orders.DAG_ID}/dagRuns/{run_id}/taskInstances/{row.task_id}/logs/{row.try_number}",
            map_index=row.map_index,
        )
        text = json.dumps(answer["content"])
        assert row.agent in text, row
        assert "Traceback" not in text, row
        assert "jetbridge-logs" in text or str(stack.directory) in text, row


def test_every_log_is_in_the_site_s_object_store(stack, run_id, rows):
    keys = object_keys(stack.s3, "jetbridge-logs")
    for row in rows:
        found = [key for key in keys if is_log_of(key, row) and run_id in unquote(key)]
        assert found, row


def object_keys(store, bucket):
    return [entry.object_name for entry in orders.client_of(store).list_objects(bucket, recursive=True)]


def is_log_of(key, row):
    parts = unquote(key).split("/")
    of_task = f"task_id={row.task_id}" in parts
    of_index = row.map_index < 0 or f"map_index={row.map_index}" in parts
    return of_task and of_index and parts[-1].startswith(f"attempt={row.try_number}.log")


def test_both_gateways_serve_the_one_address(stack):
    assert len(stack.gateways) == 2
    assert all(gateway.alive for gateway in stack.gateways)


def test_no_secret_is_in_a_log_or_a_command_line(stack, rows):
    assert rows
    secrets = [*stack.secrets.values, stack.s3.secret_key]
    secrets += [(path.read_text().strip()) for path in stack.directory.rglob("*.token")]
    secrets += [url.split("@")[0].rpartition(":")[2] for url in (stack.nats.url, stack.redis.url)]
    for process in stack.supervisor.processes:
        text = process.log_path.read_text(errors="replace") if process.log_path.exists() else ""
        leaked = [secret[:4] + "…" for secret in secrets if secret in text]
        assert not leaked, process.name
        command_line = " ".join(str(part) for part in process.command.argv)
        assert not [secret for secret in secrets if secret in command_line], process.name
