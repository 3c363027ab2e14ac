"""Requests about bundles that are wrong, hostile or somebody else's: a 4xx, counted, and nothing written."""

import base64
import gzip
import hashlib
import json
import uuid
import zlib

import pytest

GOOD_DAG = {
    "__version": 3,
    "dag": {
        "dag_id": "by-hand",
        "fileloc": "/somewhere/by_hand.py",
        "relative_fileloc": "by_hand.py",
        "timezone": "UTC",
        "timetable": {"__type": "airflow.timetables.simple.NullTimetable", "__var": {}},
        "tasks": [],
        "task_group": {
            "_group_id": None,
            "prefix_group_id": True,
            "children": {},
            "tooltip": "",
            "ui_color": "CornflowerBlue",
            "ui_fgcolor": "#000",
            "upstream_group_ids": [],
            "downstream_group_ids": [],
            "upstream_task_ids": [],
            "downstream_task_ids": [],
        },
        "edge_info": {},
        "params": [],
        "deadline": None,
        "dag_dependencies": [],
    },
}


def packed(result, *, data=None, claim=None):
    """A parsing result as an agent sends it; ``data`` and ``claim`` replace what is true."""
    text = json.dumps(result).encode()
    return {
        "hash": claim or hashlib.sha256(text).hexdigest(),
        "result": base64.b64encode(gzip.compress(text) if data is None else data).decode(),
    }


def result(*dags, **changes):
    return {
        "format": 1,
        "fileloc": "/somewhere/by_hand.py",
        "dags": [{"data": dag} for dag in dags],
        **changes,
    }


def dag(**changes):
    return GOOD_DAG | {"dag": GOOD_DAG["dag"] | changes}


@pytest.fixture(scope="module")
def agent(plane):
    """An agent that holds a bundle, and posts about it by hand."""
    post = plane.client(f"by-hand-{uuid.uuid4().hex[:6]}")
    bundle = f"by-hand-{uuid.uuid4().hex[:6]}"

    def about(path, body=None, **more):
        (about.held,) = post("claim", {"bundles": [bundle]}).json()["held"]  # it is kept by being claimed
        return post(path, {**about.held, **(body or {})}, **more)

    about.post = post
    assert about("declare").status_code == 200
    yield about
    post.http.close()


@pytest.fixture
def nothing_written(database, agent):
    """See that the test left no trace of its bundle's files."""

    def traces():
        bundle = agent.held["bundle"]
        return [
            database.rows("SELECT * FROM dag WHERE bundle_name = %s", bundle),
            database.rows("SELECT * FROM dag_version WHERE bundle_name = %s", bundle),
            database.rows("SELECT * FROM import_error WHERE bundle_name = %s", bundle),
            database.rows("SELECT version FROM dag_bundle WHERE name = %s", bundle),
        ]

    before = traces()
    yield
    assert traces() == before


@pytest.fixture
def refused(agent):
    def count(problem):
        metrics = agent.post.http.get("/metrics").text
        name = f'jetbridge_gateway_refused_requests_total{{problem="{problem}"}}'
        return sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(name))

    return count


def file_parsed(**changes):
    return {"path": "by_hand.py", "run_seconds": 0.1, **packed(result(GOOD_DAG)), **changes}


def bomb(mib):
    """Return the beginning of a gzip file of so many MiB, of which this process compresses but one."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    one = deflate.compress(b"A" * (1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + one * mib


RESULTS = {
    "no gzip": (packed({}, data=b"rubbish"), 400),
    "nothing": (packed({}, data=b""), 400),
    "truncated": (packed({}, data=gzip.compress(json.dumps(result(GOOD_DAG)).encode())[:-9]), 400),
    "something behind": (packed(result(), data=gzip.compress(json.dumps(result()).encode()) + b"more"), 400),
    "not what its hash says": (packed(result(GOOD_DAG), claim="0" * 64), 400),
    "bomb": (packed({}, data=bomb(mib=200)), 413),
    "deep": (
        packed({}, data=gzip.compress(b"[" * 1_000_000), claim=hashlib.sha256(b"[" * 1_000_000).hexdigest()),
        400,
    ),
    "no result": (packed(["a", "list"]), 400),
    "newer format": (packed(result(GOOD_DAG, format=2)), 422),
    "newer serialization": (packed(result(GOOD_DAG | {"__version": 4})), 422),
    "no serialization version": (packed(result({"dag": GOOD_DAG["dag"]})), 422),
    "no dag": (packed(result({"__version": 3})), 422),
    "dag without an id": (packed(result(dag(dag_id=None))), 422),
    "dag id of megabytes": (packed(result(dag(dag_id="d" * (1 << 20)))), 422),
    "a NUL character": (packed(result(dag(description="a \0 in it"))), 422),
    "a timetable nobody knows": (packed(result(dag(timetable={"__type": "os.system", "__var": {}}))), 422),
    "tasks that are none": (packed(result(dag(tasks=[{"__var": 7}]))), 422),
    "one good and one bad": (packed(result(dag(dag_id="good-one"), dag(dag_id="bad\0one"))), 422),
}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("name", RESULTS)
def test_a_result_that_cannot_be_used(agent, name):
    body, status = RESULTS[name]
    answer = agent("parsed", file_parsed(**body))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


BODIES = {
    "unknown field": ({"x": 1}, 400),
    "no path": ({"path": ""}, 400),
    "path of megabytes": ({"path": "p" * 3000}, 400),
    "negative time": ({"run_seconds": -1}, 400),
    "hash that is none": ({"hash": "x"}, 400),
    "result that is no base64": ({"result": "%%%"}, 400),
    "newer contract": ({"contract": 2}, 422),
}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_does_not_fit(agent, name):
    changes, status = BODIES[name]
    assert agent("parsed", file_parsed(**changes)).status_code == status


@pytest.mark.usefixtures("nothing_written")
def test_a_body_that_is_too_large(agent):
    answer = agent("state", {"bundle": "b" * (1 << 20)})
    assert answer.status_code == 413
    answer = agent("parsed", file_parsed(result="A" * (50 << 20)))
    assert answer.status_code == 413


EVERYTHING = {
    "declare": {},
    "state": {},
    "refreshed": {"version": "v"},
    "files": {"paths": []},
    "parsed": file_parsed(),
    "stale": {"parsed": []},
}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("path", EVERYTHING)
def test_a_bundle_that_is_not_ones_own(agent, plane, path):
    other = plane.client(f"other-{uuid.uuid4().hex[:6]}")
    assert other(path, {**agent.held, **EVERYTHING[path]}).status_code == 410
    assert agent(path, {**EVERYTHING[path], "epoch": agent.held["epoch"] + 1}).status_code == 410
    assert agent(path, {**EVERYTHING[path], "bundle": "nobody-claimed-this"}).status_code == 410
    other.http.close()


@pytest.mark.usefixtures("nothing_written")
def test_requests_of_a_bundle_that_is_not_ones_own(agent, plane):
    other = plane.client(f"other-{uuid.uuid4().hex[:6]}")
    assert other("requests", {"bundles": [agent.held]}).status_code == 410
    other.http.close()


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("role", ["worker", "triggerer"])
@pytest.mark.parametrize("path", [*EVERYTHING, "claim", "requests"])
def test_an_agent_of_another_role(agent, plane, role, path):
    other = plane.client(f"{role}-{uuid.uuid4().hex[:6]}", role=role)
    body = (
        {"bundles": ["b"]}
        if path == "claim"
        else {"bundles": [agent.held]}
        if path == "requests"
        else {**agent.held, **EVERYTHING[path]}
    )
    assert other(path, body).status_code == 403
    other.http.close()


def test_what_a_dag_processor_may_not_read_of_airflow(agent):
    name = agent.post.name
    for path in (
        "connections/x",
        "variables/x",
        "task-instances/../variables/x",
        "task-instances/%2e%2e/variables/x",
        "hitlDetails/x",
        "",
    ):
        answer = agent.post.http.get(f"/v1/agents/{name}/airflow/{path}", headers=agent.post.headers)
        assert answer.status_code in (400, 403, 404), path


def test_xcoms_are_read_of_dags_of_its_own_bundles_only(agent, plane):
    """403: it did not go on. Airflow's 404, or 502 while no test has started Airflow: it did."""
    mine = f"of-mine-{uuid.uuid4().hex[:6]}"
    stranger = plane.client(f"by-hand-{uuid.uuid4().hex[:6]}", role="dag-processor")
    assert agent("parsed", file_parsed(**packed(result(dag(dag_id=mine))))).status_code == 200

    def read(post, dag_id):
        path = f"/v1/agents/{post.name}/airflow/xcoms/{dag_id}/r/t/k"
        return post.http.get(path, headers=post.headers).status_code

    assert read(agent.post, mine) in (404, 502)
    assert read(agent.post, "nothing-of-the-kind") == 403
    assert read(stranger, mine) == 403
    stranger.http.close()


def test_every_refusal_is_counted_and_the_next_request_is_served(agent, refused, database):
    before = {problem: refused(problem) for problem in ("malformed", "unusable", "lease-lost", "too-large")}
    agent("parsed", file_parsed(**RESULTS["truncated"][0]))
    agent("parsed", file_parsed(**RESULTS["newer serialization"][0]))
    agent("parsed", file_parsed(**RESULTS["bomb"][0]))
    agent("state", {"epoch": 1 << 40})
    assert {problem: refused(problem) - count for problem, count in before.items()} == dict.fromkeys(
        before, 1.0
    )
    name = f"by-hand-{uuid.uuid4().hex[:6]}"
    answer = agent("parsed", file_parsed(**packed(result(dag(dag_id=name)))))
    assert answer.status_code == 200, answer.text
    assert database.is_active(name)


def test_what_is_said_twice_is_written_once(agent, database):
    name = f"twice-{uuid.uuid4().hex[:6]}"
    body = file_parsed(path="twice.py", **packed(result(dag(dag_id=name, relative_fileloc="twice.py"))))
    answers = [agent("parsed", body).json()["hash"] for _ in range(2)]
    assert answers == [body["hash"]] * 2
    assert agent("parsed", {**body, "result": None}).json()["hash"] == body["hash"]
    assert len(database.rows("SELECT * FROM dag_version WHERE dag_id = %s", name)) == 1


def test_a_plane_that_does_not_have_a_result_asks_for_it(agent):
    answer = agent("parsed", {**file_parsed(), "result": None, "hash": "1" * 64})
    assert (answer.status_code, answer.json()["hash"]) == (200, None)
