"""
The same folders through Airflow's own Dag processor into one database and through ours into another.

Every table is compared, column by column, without ids, times and durations; what refers to ids is compared
once more with what the ids stand for.
"""

import json
import re
import shutil
import time
import zipfile
from collections import Counter
from pathlib import Path

import airflow
import pytest

from jetbridge.devstack.airflow import airflow_command

pytestmark = pytest.mark.long  # two whole Airflow parsers side by side take minutes

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES = Path(airflow.__path__[0]) / "example_dags"

NOT_ABOUT_DAGS = {"alembic_version", "job", "log", "session"}
VOLATILE = {
    "last_parsed_time",
    "last_parse_duration",
    "next_dagrun",
    "next_dagrun_partition_key",
    "next_dagrun_create_after",
    "next_dagrun_data_interval_start",
    "next_dagrun_data_interval_end",
    "kwargs",  # encrypted with a nonce
    "dag_hash",  # compared below
    "source_code",
    "source_code_hash",
    "_data",
    "data",
    "_data_compressed",
    "data_compressed",
}
PARSED_INTO_DAGS = ("AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG", "AIRFLOW__CORE__DAGS_FOLDER")
REFERENCES = {
    "dag_schedule_asset_reference": "SELECT r.dag_id, a.name, a.uri FROM dag_schedule_asset_reference r "
    "JOIN asset a ON a.id = r.asset_id",
    "task_outlet_asset_reference": "SELECT r.dag_id, r.task_id, a.name FROM task_outlet_asset_reference r "
    "JOIN asset a ON a.id = r.asset_id",
    "task_inlet_asset_reference": "SELECT r.dag_id, r.task_id, a.name FROM task_inlet_asset_reference r "
    "JOIN asset a ON a.id = r.asset_id",
    "dag_schedule_asset_alias_reference": "SELECT r.dag_id, a.name FROM dag_schedule_asset_alias_reference r "
    "JOIN asset_alias a ON a.id = r.alias_id",
    "asset_watcher": "SELECT w.name, a.name, t.classpath FROM asset_watcher w "
    "JOIN asset a ON a.id = w.asset_id JOIN trigger t ON t.id = w.trigger_id",
    "serialized_dag": "SELECT v.dag_id, v.version_number, v.bundle_name FROM serialized_dag s "
    "JOIN dag_version v ON v.id = s.dag_version_id",
    "dag_code": "SELECT v.dag_id, v.version_number, c.fileloc FROM dag_code c "
    "JOIN dag_version v ON v.id = c.dag_version_id",
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, local_bundle):
    corpus = tmp_path_factory.mktemp("corpus") / "dags"
    shutil.copytree(CORPUS, corpus)
    with zipfile.ZipFile(corpus / "packed.zip", "w") as archive:
        archive.writestr(
            "packed_dag.py", (CORPUS / "nested" / "deep.py").read_text().replace("deep", "packed")
        )
        archive.writestr("packed_broken.py", "from airflow.sdk import DAG\nraise RuntimeError('packed')\n")
    # Both processors look through each bundle once. Airflow stores the import error of a file in an archive
    # under its absolute path, and clears it at the next look, since it has observed no such path.
    return [
        local_bundle(
            "corpus", corpus, view_url_template="https://example.com/{version}/corpus", refresh_interval=3600
        ),
        local_bundle("airflow-examples", EXAMPLES, refresh_interval=3600),
    ]


@pytest.fixture(scope="module")
def by_airflow(own_servers, bundles, tmp_path_factory):
    """A database that Airflow's own Dag processor filled."""
    database = own_servers.database("local", tmp_path_factory.mktemp("no-dags"))
    database.environment["AIRFLOW__CORE__DAGS_FOLDER"] = "/nowhere/dags"
    env = database.environment | {
        "PYTHONHASHSEED": "0",  # Airflow serializes some sets in the order they happen to have
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
    }
    own_servers.supervisor.run(
        "airflow-dag-processor", airflow_command(env, "dag-processor", "--num-runs", "1"), timeout_seconds=400
    )
    return database


@pytest.fixture(scope="module")
def by_jetbridge(own_plane, bundles, by_airflow):
    """A database that our Dag processor filled."""
    settings = {
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        # Both end up in what is serialized, so they are the same for all Dag processors of a deployment.
        **{key: by_airflow.environment[key] for key in PARSED_INTO_DAGS},
    }
    processor = own_plane.start(bundles, settings=settings)
    files = "SELECT relative_fileloc AS file FROM dag UNION SELECT filename FROM import_error"
    expected, deadline = {row["file"] for row in by_airflow.rows(files)}, time.monotonic() + 400
    while missing := expected - {row["file"] for row in own_plane.database.rows(files)}:
        assert time.monotonic() < deadline, (missing, processor.log()[-3000:])
        time.sleep(0.2)
    processor.process.stop()
    return own_plane.database


def tables(database):
    query = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'public' ORDER BY ordinal_position"
    )
    found = {}
    for row in database.rows(query):
        compared = not (
            row["column_name"] in VOLATILE
            or row["column_name"] == "id"
            or (row["column_name"].endswith("_id") and row["data_type"] in ("uuid", "integer", "bigint"))
            or row["data_type"].startswith("timestamp")
        )
        found.setdefault(row["table_name"], [])
        if compared:
            found[row["table_name"]].append(row["column_name"])
    return {name: columns for name, columns in found.items() if name not in NOT_ABOUT_DAGS and columns}


def content(database, table, columns):
    listed = ", ".join(f'"{column}"' for column in columns)
    query = f"SELECT {listed} FROM {table}"  # noqa: S608 - names from the database's own catalogue
    if table == "asset_active":  # of two assets with one URI the one that was parsed first is active
        query += " WHERE uri NOT IN (SELECT uri FROM asset GROUP BY uri HAVING count(*) > 1)"
    return sorted(json.dumps(normal(row), sort_keys=True, default=str) for row in database.rows(query))


def normal(row):
    if row.get("owners"):  # Airflow joins a set
        row["owners"] = ", ".join(sorted(row["owners"].split(", ")))
    if row.get("asset_expression"):
        row["asset_expression"] = re.sub(r"'id': \d+", "'id': …", str(row["asset_expression"]))
    return row


def test_every_table_is_the_same(by_airflow, by_jetbridge):
    compared = tables(by_airflow)
    assert {"dag", "dag_version", "dag_code", "serialized_dag", "asset", "dag_tag", "import_error"} <= set(
        compared
    )
    assert [
        line for table in compared for line in difference(by_airflow, by_jetbridge, table, compared[table])
    ] == []


def difference(by_airflow, by_jetbridge, table, columns):
    theirs, ours = content(by_airflow, table, columns), content(by_jetbridge, table, columns)
    missing = [f"{table}: missing {row}" for row in (Counter(theirs) - Counter(ours)).elements()]
    return missing + [f"{table}: unexpected {row}" for row in (Counter(ours) - Counter(theirs)).elements()]


def test_the_comparison_is_about_something(by_airflow):
    count = {table: len(content(by_airflow, table, columns)) for table, columns in tables(by_airflow).items()}
    expected = (
        *("dag", "dag_version", "serialized_dag", "dag_code", "dag_tag", "dag_owner_attributes"),
        *("asset", "asset_active", "asset_alias", "asset_watcher", "trigger"),
        *("dag_schedule_asset_reference", "dag_schedule_asset_alias_reference"),
        *("dag_schedule_asset_name_reference", "dag_schedule_asset_uri_reference"),
        *("task_outlet_asset_reference", "task_inlet_asset_reference"),
        *("import_error", "dag_warning", "dag_bundle"),
    )
    assert {table for table in expected if not count[table]} == set()
    assert count["dag"] > 60


@pytest.mark.parametrize("table", REFERENCES)
def test_references_lead_to_the_same(by_airflow, by_jetbridge, table):
    def read(database):
        return sorted(str(row) for row in database.rows(REFERENCES[table]))

    assert read(by_jetbridge) == read(by_airflow) != []


def serialized(database):
    query = "SELECT dag_id, data, dag_hash FROM serialized_dag"
    return {row["dag_id"]: (row["data"], row["dag_hash"]) for row in database.rows(query)}


def test_every_dag_is_serialized_the_same(by_airflow, by_jetbridge):
    ours, theirs = serialized(by_jetbridge), serialized(by_airflow)
    assert ours.keys() == theirs.keys()
    # Deadlines have random ids on the plane, and the unstable one is made to differ.
    random = {"corpus-unstable"} | {
        dag_id for dag_id, (data, _) in theirs.items() if data["dag"].get("deadline")
    }
    assert len(theirs.keys() - random) > 60
    assert {dag_id for dag_id in ours.keys() - random if ours[dag_id] != theirs[dag_id]} == set()


def test_the_source_stays_where_it_is(by_airflow, by_jetbridge):
    query = "SELECT dag_id, source_code FROM dag_code"
    theirs = {row["dag_id"]: row["source_code"] for row in by_airflow.rows(query)}
    ours = {row["dag_id"]: row["source_code"] for row in by_jetbridge.rows(query)}
    assert "def square(number, offset)" in theirs["corpus-everything"]
    assert ours["corpus-everything"] == (
        "# The source of this Dag stays in its execution plane and was not sent to the orchestration plane.\n"
        "# It is everything.py in the Dag bundle 'corpus'.\n"
    )
    lines = {line.strip() for source in theirs.values() for line in source.splitlines() if len(line) > 60}
    assert len(lines) > 100
    assert [line for line in lines if any(line in source for source in ours.values())] == []


def test_tasks_with_instances_would_keep_their_version(by_airflow, by_jetbridge):
    query = "SELECT dag_id, version_number FROM dag_version ORDER BY dag_id"
    assert by_jetbridge.rows(query) == by_airflow.rows(query)
