"""What happens to Dag files in an execution plane shows on the plane, as with Airflow's own Dag processor."""

import zipfile

import pytest


@pytest.fixture(scope="module")
def shared(plane, tmp_path_factory, local_bundle):
    """One processor of one folder for the whole module; each test has files and Dags of its own."""
    folder = tmp_path_factory.mktemp("shared")
    processor = plane.start([local_bundle("shared", folder)])
    yield folder
    processor.process.kill()


@pytest.fixture
def dag_file(shared, bundle):
    """Write a file of this test's own and return it."""

    def write(source, name="dags"):
        path = shared / f"{bundle}_{name}.py"
        path.write_text(source)
        return path

    yield write
    for path in shared.glob(f"{bundle}*"):
        path.unlink()


def test_a_dag_appears(dag_file, database, bundle, eventually, dag_source):
    path = dag_file(dag_source(f"{bundle}-one", tasks=("a", "b")))
    eventually(lambda: database.is_active(f"{bundle}-one"))
    dag = database.dag(f"{bundle}-one")
    assert (dag["bundle_name"], dag["relative_fileloc"], dag["fileloc"]) == ("shared", path.name, str(path))


@pytest.mark.usefixtures("shared")
def test_airflow_shows_a_healthy_dag_processor(in_airflow, eventually):
    script = "from airflow.api.common.airflow_health import get_airflow_health; print(get_airflow_health())"
    eventually(lambda: "'dag_processor': {'status': 'healthy'" in in_airflow(script))


def test_a_changed_dag_is_seen_and_its_note_stays_true(dag_file, database, bundle, eventually, dag_source):
    dag_id = f"{bundle}-one"

    def tasks():
        query = "SELECT data FROM serialized_dag WHERE dag_id = %s"
        return [
            [task["__var"]["task_id"] for task in row["data"]["dag"]["tasks"]]
            for row in database.rows(query, dag_id)
        ]

    path = dag_file(dag_source(dag_id, tasks=("before",)))
    eventually(lambda: tasks() == [["before"]])
    dag_file(dag_source(dag_id, tasks=("after",)))
    eventually(lambda: tasks() == [["after"]])
    (code,) = database.rows("SELECT source_code FROM dag_code WHERE dag_id = %s", dag_id)
    assert f"It is {path.name} in the Dag bundle 'shared'." in code["source_code"]
    assert "EmptyOperator" not in code["source_code"]


def test_an_unchanged_file_is_noted_and_not_sent_again(dag_file, database, bundle, eventually, dag_source):
    dag_file(dag_source(f"{bundle}-one"))
    first = eventually(lambda: database.dag(f"{bundle}-one"))["last_parsed_time"]
    eventually(lambda: database.dag(f"{bundle}-one")["last_parsed_time"] > first)


def test_a_dag_deleted_in_the_ui_comes_back_with_the_next_parse(
    dag_file, database, bundle, eventually, dag_source, in_airflow
):
    dag_file(dag_source(f"{bundle}-one"))
    eventually(lambda: database.is_active(f"{bundle}-one"))
    first = database.rows("SELECT id FROM dag_version WHERE dag_id = %s", f"{bundle}-one")
    in_airflow(
        "import sys; from airflow.api.common.delete_dag import delete_dag; delete_dag(sys.argv[1])",
        f"{bundle}-one",
    )
    eventually(
        lambda: (
            database.rows("SELECT id FROM dag_version WHERE dag_id = %s", f"{bundle}-one") not in ([], first)
        )
    )
    eventually(lambda: database.is_active(f"{bundle}-one"))


def test_a_renamed_dag_takes_the_place_of_the_old_one(dag_file, database, bundle, eventually, dag_source):
    dag_file(dag_source(f"{bundle}-old") + dag_source(f"{bundle}-stays"))
    eventually(lambda: database.is_active(f"{bundle}-old"))
    dag_file(dag_source(f"{bundle}-new") + dag_source(f"{bundle}-stays"))
    eventually(lambda: database.is_active(f"{bundle}-new") and not database.is_active(f"{bundle}-old"))
    assert database.is_active(f"{bundle}-stays")


def test_a_deleted_file_takes_its_dags_and_errors_along(dag_file, database, bundle, eventually, dag_source):
    good = dag_file(dag_source(f"{bundle}-good"), name="good")
    bad = dag_file("from airflow.sdk import DAG\nraise RuntimeError('on purpose')\n", name="bad")
    eventually(lambda: database.is_active(f"{bundle}-good") and bad.name in database.import_errors("shared"))
    good.unlink()
    bad.unlink()
    eventually(
        lambda: not database.is_active(f"{bundle}-good") and bad.name not in database.import_errors("shared")
    )


def test_an_import_error_comes_and_goes_and_the_dag_with_it(
    dag_file, database, bundle, eventually, dag_source
):
    good = dag_source(f"{bundle}-one")
    path = dag_file(good)
    eventually(lambda: database.is_active(f"{bundle}-one"))
    dag_file("raise RuntimeError('no such luck')\n" + good)
    error = eventually(lambda: database.import_errors("shared").get(path.name))
    assert "RuntimeError: no such luck" in error
    assert database.dag(f"{bundle}-one")["has_import_errors"]
    dag_file(good)
    eventually(lambda: path.name not in database.import_errors("shared"))
    eventually(lambda: database.is_active(f"{bundle}-one"))


def test_warnings_come_and_go(dag_file, database, bundle, eventually, dag_source):
    def warnings():
        return database.rows("SELECT warning_type FROM dag_warning WHERE dag_id = %s", f"{bundle}-one")

    steady = dag_source(f"{bundle}-one")
    unsteady = steady.replace("schedule=None", "schedule=None, start_date=datetime.now()")
    dag_file("from datetime import datetime\n" + unsteady)
    eventually(warnings)
    dag_file(steady)
    eventually(lambda: not warnings())


def test_archives_are_looked_into(shared, database, bundle, eventually, dag_source):
    archive = shared / f"{bundle}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inside.py", dag_source(f"{bundle}-inside"))
    eventually(lambda: database.is_active(f"{bundle}-inside"))
    assert database.dag(f"{bundle}-inside")["relative_fileloc"] == f"{archive.name}/inside.py"
    archive.unlink()
    eventually(lambda: not database.is_active(f"{bundle}-inside"))


def test_a_dag_that_is_too_much_for_the_database_is_an_import_error_and_the_rest_go_on(
    dag_file, database, bundle, eventually, dag_source
):
    bad = dag_file(dag_source(f"{bundle}-bad", description="a NUL: \0"), name="bad")
    eventually(lambda: bad.name in database.import_errors("shared"))
    assert "The plane does not take this file's Dags" in database.import_errors("shared")[bad.name]
    assert database.dag(f"{bundle}-bad") is None
    dag_file(dag_source(f"{bundle}-good"), name="good")
    eventually(lambda: database.is_active(f"{bundle}-good"))


def test_a_large_result_comes_through(dag_file, database, bundle, eventually, dag_source):
    # Random text does not compress, so the result is far above what one NATS message may have.
    source = dag_source(f"{bundle}-large").replace(
        "schedule=None", "schedule=None, doc_md=random.Random(1).randbytes(3_000_000).hex()"
    )
    dag_file("import random\n" + source)
    eventually(lambda: database.is_active(f"{bundle}-large"))
    query = "SELECT length(data->'dag'->>'doc_md') AS length FROM serialized_dag WHERE dag_id = %s"
    assert database.rows(query, f"{bundle}-large") == [{"length": 6_000_000}]


def test_who_asks_for_a_file_in_the_ui_gets_it_parsed_now(
    start, database, folder, bundle, eventually, dag_source, local_bundle
):
    (folder / "one.py").write_text(dag_source(f"{bundle}-one"))
    never = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600"}
    start([local_bundle(bundle, folder)], settings=never)
    first = eventually(lambda: database.dag(f"{bundle}-one"))["last_parsed_time"]
    database.execute(
        "INSERT INTO dag_priority_parsing_request (id, bundle_name, relative_fileloc) VALUES (%s, %s, %s)",
        bundle,
        bundle,
        "one.py",
    )
    eventually(lambda: database.dag(f"{bundle}-one")["last_parsed_time"] > first)
    assert database.rows("SELECT * FROM dag_priority_parsing_request WHERE bundle_name = %s", bundle) == []


def test_source_crosses_where_a_policy_says_so_and_goes_when_it_says_no_more(
    start, plane, folder, database, bundle, eventually, dag_source, local_bundle
):
    dag_id, site = f"{bundle}-shown", f"site-of-{bundle}"
    source = dag_source(dag_id) + "# ä\n"

    def policy(rule):
        word = f"boundary.dag-source={rule}"
        plane.servers.supervisor.run(
            f"policy-{bundle}-{rule}",
            plane.servers.plane.command("policy", "set", f"site:{site}", word),
            timeout_seconds=60,
        )

    def code():
        query = (
            "SELECT source_code, fileloc FROM dag_code WHERE dag_id = %s ORDER BY last_updated DESC LIMIT 1"
        )
        return [tuple(row.values()) for row in database.rows(query, dag_id)]

    (folder / "shown.py").write_text(source)
    start([local_bundle(bundle, folder)], "--site", site)
    eventually(code)
    assert "stays in its execution plane" in code()[0][0]
    policy("open")
    eventually(lambda: code() == [(source, str(folder / "shown.py"))])
    policy("")
    eventually(lambda: "stays in its execution plane" in code()[0][0])
