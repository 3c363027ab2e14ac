"""
A plane without one Dag file: a remote Dag processor reads a Git repository, workers run tasks at its commits.

The whole system as real processes; the test pushes like anybody else.
"""

import logging
import time

import pytest

from jetbridge.devstack.isolation import address_of, environments_of, reachable_from

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)
DAG_ID = "versioned"
RUN_SECONDS = 240
PARSER = "parser"


@pytest.fixture(scope="module")
def stack(site):
    site.client.await_dag(DAG_ID)
    site.client.unpause(DAG_ID)
    return site


@pytest.fixture
def trigger(stack, tmp_path_factory):
    def trigger():
        directory = tmp_path_factory.mktemp("run")
        return stack.client.trigger(DAG_ID, {"directory": str(directory)}), directory

    return trigger


def release(stack, name):
    (stack.git.clone / "release.py").write_text(f'RELEASE = "{name}"\n')
    return stack.git.push(name)


def shown(stack):
    """What the UI shows: the Dag's text, its newest version, and its code."""
    dag = stack.client.get(f"dags/{DAG_ID}/details")
    versions = stack.client.get(f"dags/{DAG_ID}/dagVersions")["dag_versions"]
    newest = max(versions, key=lambda one: one["version_number"])
    return dag["doc_md"], newest["bundle_version"], stack.client.get(f"dagSources/{DAG_ID}")["content"]


def wait(stack, condition, what, seconds=120):
    stack.client.wait(condition, what, timeout_seconds=seconds)


def test_a_push_shows_in_the_ui_and_a_run_stays_at_the_commit_it_began_with(stack, trigger):
    text, first, source = shown(stack)
    assert text == "Release first"
    assert f"versioned.py in the Dag bundle 'dags' at version {first}" in source
    assert "def say" not in source

    old, old_directory = trigger()
    wait(stack, (old_directory / "begin").exists, "the first task of the first run")
    pushed, second = time.monotonic(), release(stack, "second")
    wait(stack, lambda: shown(stack)[:2] == ("Release second", second), "the push to show", seconds=60)
    log.info("from push to UI: %.1f s", time.monotonic() - pushed)

    new, new_directory = trigger()
    (old_directory / "go").touch()
    (new_directory / "go").touch()
    assert stack.await_run(DAG_ID, old, timeout_seconds=RUN_SECONDS) == "success"
    assert stack.await_run(DAG_ID, new, timeout_seconds=RUN_SECONDS) == "success"
    said = {name: (old_directory / name).read_text() for name in ("begin", "end")}
    assert all(text.startswith("first from ") and text.endswith(first) for text in said.values()), said
    said = {name: (new_directory / name).read_text() for name in ("begin", "end")}
    assert all(text.startswith("second from ") and text.endswith(second) for text in said.values()), said


def test_the_plane_runs_no_dag_processor_and_has_no_bundle(stack):
    assert stack.airflow.dag_processor is None
    for process in (stack.airflow.api_server, stack.airflow.scheduler, stack.failover["bridge"]):
        assert process.alive
        assert process.command.env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] == "[]"
    assert not list((stack.directory / "airflow").rglob("versioned*"))


def test_the_dag_processor_has_no_secret_of_the_plane_and_reaches_the_gateway_alone(stack):
    parses = stack.agents[PARSER]
    secrets = [
        url.split("@")[0].rpartition(":")[2] for url in (stack.nats.url, stack.redis.url, stack.database_url)
    ]
    for environment in environments_of(parses):
        assert not [secret for secret in [*secrets, *stack.secrets.values] if secret in str(environment)]
    if stack.not_isolated_because:
        pytest.skip(f"no network namespaces here: {stack.not_isolated_because}")
    addresses = {"postgres": stack.database_url, "nats": stack.nats.url, "airflow": stack.airflow.url}
    reached = reachable_from(parses, {name: address_of(url) for name, url in addresses.items()})
    assert not any(reached.values())


def test_while_no_dag_processor_runs_the_plane_schedules_what_it_knows(stack, trigger):
    stack.agents[PARSER].process.kill()
    run_id, directory = trigger()
    (directory / "go").touch()
    assert stack.await_run(DAG_ID, run_id, timeout_seconds=RUN_SECONDS, check=lambda: None) == "success"
    stack.agents[PARSER].process.start()
    third = release(stack, "third")
    wait(stack, lambda: shown(stack)[1] == third, "the push to show")
