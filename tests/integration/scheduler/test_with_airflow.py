"""Airflow's own scheduler code and REST API with ours in them, on a real database."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.apply import apply
from jetbridge.bus.connection import open_bus
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.records import AgentRecord
from jetbridge.devstack.airflow import DATABASE, migrate, start_database
from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import nats

SCRIPTS = Path(__file__).parent / "on_airflow"


SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__EXECUTOR": "jetbridge.scheduler.executor.RemoteExecutor",
    "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "jetbridge.scheduler.logging_config.LOGGING_CONFIG",
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test, long enough for HS512 to be content with it",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A server with a database of this Airflow's version, to be copied."""
    directory = tmp_path_factory.mktemp("postgres")
    with Supervisor(directory) as supervisor:
        server, migrated = start_database(supervisor)
        url = server.create_database(DATABASE)
        if not migrated:
            migrate(supervisor, server, configured(directory, url))
        yield server


def configured(home, database_url):
    """What configures Airflow as on a plane."""
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url}
    return {**os.environ, **SETTINGS, **database, "AIRFLOW_HOME": str(home)}


def run(environment, command):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_script(name, environment, nats_url, answer):
    """Run one of the scripts inside of Airflow; returns its answer and all that it said."""
    output = run({**environment, "JETBRIDGE_NATS_URL": nats_url}, [sys.executable, SCRIPTS / name, answer])
    assert "Traceback" not in output
    return json.loads(answer.read_text()), output


@pytest.fixture(scope="module")
def rest_api(postgres, tmp_path_factory):
    """What Airflow's REST API answers, and all that its process said."""
    home = tmp_path_factory.mktemp("rest-api")
    environment = configured(home, postgres.create_database("rest_api", DATABASE))
    with Supervisor(home / "servers") as supervisor:
        nats_url = nats.start(supervisor).url
        asyncio.run(write_agents(nats_url))
        return run_script("ask_the_rest_api.py", environment, nats_url, home / "answers.json")


async def write_agents(nats_url):
    async with open_bus(BusSettings(url=nats_url), "tests") as bus:
        await apply(bus, 1)
        store = await AgentStore.open(bus)
        for name, site, log_store in (("worker-1", "paris", "s3://logs/paris/"), ("worker-2", "", "")):
            record = AgentRecord(
                name=name,
                instance="0" * 32,
                role="worker",
                queues=("default",),
                slots=1,
                site=site,
                log_store=log_store,
                token_id="x",
                registered_at=datetime.now(UTC),
            )
            await store.bucket.put(name, record)


PATH = "dag_id=logs/run_id=r/task_id={}/attempt=1.log"
STORED = "Its log is kept under s3://logs/paris/" + PATH + "."
EXPECTED = {
    "running": "This attempt runs on agent worker-1 (site paris). Its log is on that agent, afterwards it is "
    f"kept under s3://logs/paris/{PATH}.",
    "succeeded": f"This attempt ran on agent worker-1 (site paris). {STORED}",
    "retrying": f"This attempt ran on agent worker-1 (site paris). {STORED}",
    "deferred": f"This attempt ran on agent worker-1 (site paris). {STORED}",
    "storeless": "This attempt ran on agent worker-2. Its log is kept there.",
    "unknown_agent": "This attempt ran on agent worker-9. "
    "Its log is kept there (the agent's log store cannot be looked up now).",
    "never_started": "No agent has started this attempt, so there is no log of it.",
    "logged_here": "a line of the log on the plane",
}


def test_the_log_tab_names_agent_and_place(rest_api):
    answers = rest_api[0]["logs"]
    for task_id, expected in EXPECTED.items():
        status, body = answers["application/json"][task_id]
        shown = [line["event"] for line in json.loads(body)["content"]]
        assert (status, shown[-1]) == (200, expected.format(task_id))
        assert not [line for line in shown if "Could not read" in line]
        status, body = answers["application/x-ndjson"][task_id]
        assert status == 200
        assert expected.format(task_id) in [json.loads(line)["event"] for line in body.splitlines()]


@pytest.mark.usefixtures("plane")
async def test_a_scheduler_takes_over_from_a_dead_one(postgres, server, tmp_path):
    environment = configured(tmp_path, postgres.create_database("takes_over", DATABASE))
    arguments = "run_scheduler.py", environment, server.url, tmp_path / "answer.json"
    answer, _ = await asyncio.to_thread(run_script, *arguments)
    before, adopted, after = answer["before"], answer["adopted"], answer["after"]
    kept = set(before) - {"running_lost"}
    for task_id in kept:  # the same attempt goes on: no retry is used up
        assert adopted[task_id] == before[task_id] | {"queued_by_job_id": answer["job"]}
        assert after[task_id]["id"] == before[task_id]["id"] or task_id == "queued_refused"
    assert (adopted["running_lost"]["state"], adopted["running_lost"]["queued_by_job_id"]) == (None, None)
    assert adopted["running_lost"]["id"] != before["running_lost"]["id"]
    assert {task_id: after[task_id]["state"] for task_id in kept} == {
        "queued_unsent": "success",
        "queued_without_message": "success",
        "queued_refused": "failed",
        "running": "failed",
    }
    assert {after[task_id]["external_executor_id"] for task_id in kept - {"queued_refused"}} == {"worker-1"}
    said = {(entry["task_id"], entry["event"]): entry["extra"] for entry in answer["log"]}
    assert json.loads(said["queued_unsent", "jetbridge.leased"])["agent"] == "worker-1"
    assert "killed by the kernel" in said["running", "state mismatch"]
    assert "labels" in said["queued_refused", "jetbridge.refused"]


def test_tokens_are_made_listed_rotated_and_revoked_behind_airflows_login(rest_api):
    answers, output = rest_api[0]["tokens"], rest_api[1]
    created, rotated = answers["created"]["body"], answers["rotated"]["body"]
    token, again = AgentToken.parse(created["secret"]), AgentToken.parse(rotated["secret"])
    assert answers["created"]["cache"] == "no-store"
    assert created["token"]["scopes"] == {"roles": ["worker"], "queues": ["gpu"]}
    assert again.id == token.id
    assert again.secret != token.secret
    assert rotated["token"]["previous_secret_until"]
    assert [one["state"] for one in answers["listed"]["body"]["tokens"]] == ["valid"]
    assert answers["revoked"]["body"]["token"]["state"] == "revoked"
    for text in (json.dumps(answers["listed"]), output):
        assert token.secret not in text
        assert again.secret not in text
    assert {name: answer["status"] for name, answer in answers.items()} == {
        "created": 201,
        "listed": 200,
        "rotated": 200,
        "revoked": 200,
        "revoked again": 200,
        "rotated when revoked": 404,
        "unknown": 404,
        "pasted": 404,
        "no json": 415,
        "unknown field": 422,
        "bad network": 422,
        "bad name": 422,
        "too large": 413,
        "nobody": 401,
        **{f"{role} {does}": 403 for role in ("VIEWER", "USER") for does in VERBS},
    }
    assert "s" * 43 not in json.dumps(answers["pasted"])


VERBS = ("lists", "creates", "rotates", "revokes")
