"""Bundles in a real Git repository, served by ``git daemon``."""

import json
import logging
import subprocess
import time

import pytest

from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import accepts_connections
from jetbridge.devstack.processes import Command

pytestmark = pytest.mark.long

log = logging.getLogger(__name__)
AUTHOR = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]


class Repository:
    """A repository on the server, and a clone of somebody who pushes to it."""

    def __init__(self, server, root, name):
        self.url = f"{server}/{name}.git"
        self._bare, self.path = root / f"{name}.git", root / f"{name}-clone"
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self._bare], check=True)
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", self.path], check=True)
        self.git("remote", "add", "origin", str(self._bare))

    def git(self, *arguments):
        command = ["git", "-C", str(self.path), *AUTHOR, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def push(self, **files):
        """Commit files below ``dags``, by name (None deletes), and push; returns the commit."""
        folder = self.path / "dags"
        folder.mkdir(exist_ok=True)
        for name, source in files.items():
            path = folder / f"{name}.py"
            path.unlink() if source is None else path.write_text(source)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def git_server(servers, tmp_path_factory):
    root, port = tmp_path_factory.mktemp("git"), free_port()
    argv = ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}"]
    command = Command(argv=[*argv, f"--base-path={root}", str(root)], env={"PATH": "/usr/bin:/bin"})
    process = servers.supervisor.start("git-daemon", command, ready=accepts_connections("127.0.0.1", port))
    return process, f"git://127.0.0.1:{port}", root


@pytest.fixture
def repository(git_server, bundle):
    _, url, root = git_server
    return lambda name="orders": Repository(url, root, f"{bundle}-{name}")


@pytest.fixture
def git_bundle():
    def make(name, url=None, **kwargs):
        kwargs |= {"repo_url": url} if url else {}
        return {
            "name": name,
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {"tracking_ref": "main", "subdir": "dags", "refresh_interval": 1, **kwargs},
        }

    return make


@pytest.fixture
def versions(database):
    def read(dag_id):
        query = (
            "SELECT bundle_name, bundle_version FROM dag_version WHERE dag_id = %s ORDER BY version_number"
        )
        return [(row["bundle_name"], row["bundle_version"]) for row in database.rows(query, dag_id)]

    return read


def test_a_push_shows_on_the_plane_at_its_commit(
    start, repository, git_bundle, bundle, database, dag_source, eventually, versions
):
    repo, dag_id = repository(), f"{bundle}-one"
    first = repo.push(one=dag_source(dag_id))
    start([git_bundle(bundle, repo.url)])
    eventually(lambda: versions(dag_id) == [(bundle, first)])
    assert database.bundle(bundle)["version"] == first
    (code,) = database.rows("SELECT source_code FROM dag_code WHERE dag_id = %s", dag_id)
    assert f"one.py in the Dag bundle '{bundle}' at version {first}" in code["source_code"]

    pushed, second = time.monotonic(), repo.push(one=dag_source(dag_id, tasks=("task", "more")))
    eventually(lambda: versions(dag_id) == [(bundle, second)])
    log.info("from push to plane: %.1f s", time.monotonic() - pushed)
    assert database.bundle(bundle)["version"] == second

    third = repo.push(one=None, two=dag_source(f"{bundle}-two"))
    eventually(lambda: versions(f"{bundle}-two") == [(bundle, third)])
    eventually(lambda: not database.is_active(dag_id))


def test_a_push_of_what_a_dag_imports_is_seen_as_well(
    start, repository, git_bundle, bundle, database, dag_source, eventually
):
    repo, dag_id = repository(), f"{bundle}-one"
    source = dag_source(dag_id).replace("schedule=None", f"schedule=None, description={bundle}_text.TEXT")
    repo.push(**{f"{bundle}_text": "TEXT = 'old'", "one": f"import {bundle}_text\n{source}"})
    # Only the new version can have an unchanged file parsed again.
    start(
        [git_bundle(bundle, repo.url)], settings={"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600"}
    )
    eventually(lambda: database.is_active(dag_id) and database.dag(dag_id)["description"] == "old")
    repo.push(**{f"{bundle}_text": "TEXT = 'new'"})
    eventually(lambda: database.dag(dag_id)["description"] == "new")


def test_a_version_that_ran_stays_and_a_new_one_comes_beside_it(
    start, repository, git_bundle, bundle, dag_source, eventually, versions, in_airflow
):
    repo, dag_id = repository(), f"{bundle}-one"
    first = repo.push(one=dag_source(dag_id))
    start([git_bundle(bundle, repo.url)])
    eventually(lambda: versions(dag_id) == [(bundle, first)])
    in_airflow(MAKE_A_RUN, dag_id)
    second = repo.push(one=dag_source(dag_id, tasks=("task", "more")))
    eventually(lambda: versions(dag_id) == [(bundle, first), (bundle, second)])


def test_several_bundles_and_the_site_s_own_connection(
    start, repository, git_bundle, local_bundle, folder, bundle, database, dag_source, eventually
):
    (folder / "local.py").write_text(dag_source(f"{bundle}-local"))
    public, private = repository("public"), repository("private")
    public.push(one=dag_source(f"{bundle}-public"))
    private.push(one=dag_source(f"{bundle}-private"))
    connection = json.dumps({"conn_type": "git", "host": private.url})
    start(
        [
            git_bundle(f"{bundle}-a", public.url),
            git_bundle(f"{bundle}-b", git_conn_id="private_git"),
            local_bundle(f"{bundle}-c", folder),
        ],
        env={"AIRFLOW_CONN_PRIVATE_GIT": connection},
    )
    for name in ("public", "private", "local"):
        eventually(lambda name=name: database.is_active(f"{bundle}-{name}"))


def test_a_bundle_that_cannot_be_loaded_leaves_the_others_alone(
    start, git_bundle, local_bundle, folder, bundle, database, dag_source, eventually
):
    (folder / "local.py").write_text(dag_source(f"{bundle}-local"))
    processor = start(
        [
            git_bundle(f"{bundle}-nowhere", "git://127.0.0.1:1/nothing.git"),
            git_bundle(f"{bundle}-nothing", git_conn_id="no_such_connection"),
            local_bundle(f"{bundle}-local", folder),
        ]
    )
    eventually(lambda: database.is_active(f"{bundle}-local"))
    assert database.bundle(f"{bundle}-nothing") is None
    assert processor.process.alive


def test_while_the_git_server_is_away_what_is_known_stays(
    start, repository, git_bundle, git_server, bundle, database, dag_source, eventually, versions
):
    server, _, _ = git_server
    repo, dag_id = repository(), f"{bundle}-one"
    first = repo.push(one=dag_source(dag_id))
    processor = start([git_bundle(bundle, repo.url)])
    eventually(lambda: versions(dag_id) == [(bundle, first)])
    server.kill()
    second = repo.push(one=dag_source(dag_id, tasks=("task", "more")))
    eventually(lambda: "Error refreshing bundle" in processor.log())
    parsed = database.dag(dag_id)["last_parsed_time"]
    eventually(lambda: database.dag(dag_id)["last_parsed_time"] > parsed)
    assert versions(dag_id) == [(bundle, first)]
    server.start()
    eventually(lambda: versions(dag_id) == [(bundle, second)])


MAKE_A_RUN = """
import sys
import pendulum
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType

with create_session() as session:
    dag = SerializedDagModel.get_dag(sys.argv[1], session=session)
    dag.create_dagrun(
        run_id="run", logical_date=None, run_after=pendulum.now("UTC"), run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST, state="running", session=session,
    )
"""
