"""Every route of Airflow's Execution API has a row in the gateway's rules, in Airflow's own order."""

import pytest

from jetbridge.gateway.execution_rules import ROUTES, Kind, Own, find
from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.worker.ride_rules import RULES as RIDE_RULES

RULES = [(route.method, route.path) for route in ROUTES]
_METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}


def test_every_route_is_classified_and_no_other(airflows_api):
    theirs = airflows_api.operations()
    assert theirs, "Airflow declares its routes in another way now: read this test anew"
    assert sorted(RULES) == sorted(theirs), (
        "Airflow's Execution API changed: decide who may ask what, in execution_rules.py"
    )


def test_rows_stand_in_airflows_order(airflows_api):
    assert airflows_api.operations() == RULES  # the first that fits counts, there and here


def test_every_route_has_a_rule_for_when_the_plane_is_away_and_no_other(airflows_api):
    theirs = {(method, path.strip("/")) for method, path in airflows_api.operations()}
    assert {(row.method, row.path) for row in RIDE_RULES} == theirs
    assert len({(row.method, row.path) for row in RIDE_RULES}) == len(RIDE_RULES)


def test_no_version_of_the_api_has_a_route_that_is_not_classified(airflows_api):
    routes = {
        (method.upper(), path)
        for document in airflows_api.documents
        for path, operations in document["paths"].items()
        for method in operations
        if method in _METHODS
    }
    known = {(method, path.replace(":path", "")) for method, path in RULES}
    assert len(airflows_api.documents) == len(airflows_api.versions)
    assert {("GET", "/health"), ("PUT", "/task-instances/{task_instance_id}/heartbeat")} <= routes
    assert routes <= known


def airflows_choice(routes, method, path):
    """Which route Starlette would take: the first whose own pattern fits."""
    for route in routes:
        if method in route.methods and route.path_regex.match(path):
            return route.path
    return None


@pytest.mark.parametrize(("method", "path"), RULES)
def test_both_read_an_address_alike(airflows_api, method, path):
    for key in ("k", "a/b", "k/slice", "k/item/1", "item/1", "value", "count", "previous", "keys", "é"):
        for name in ("x", "previous", "count", "by-name"):
            filled = path.replace("{key:path}", key).replace("{variable_key:path}", key)
            for parameter in ("task_instance_id", "dag_id", "run_id", "task_id", "offset"):
                filled = filled.replace(f"{{{parameter}}}", name)
            filled = filled.replace("{connection_id}", name).replace("{connection_test_id}", name)
            assert find(method, filled).route.path == airflows_choice(airflows_api.routes, method, filled), (
                filled
            )


def test_what_airflow_ties_to_the_tokens_task_instance_is_tied_here_too():
    for route in ROUTES:
        assert ("{task_instance_id}" in route.path) == (route.own is Own.TASK_INSTANCE), route


def test_what_names_a_dag_is_tied_to_one(airflows_api):
    for route in ROUTES:
        if "{dag_id}" in route.path:
            assert route.own in (Own.DAG, Own.XCOM), route
    for route in airflows_api.routes:
        named = {field.name for field in route.dependant.query_params}
        for row in [row for row in ROUTES if row.path == route.path and "dag_id" in named]:
            assert row.own in (Own.DAG, Own.RUN), row


def test_nobody_tests_connections_because_the_executor_does_not():
    assert not RemoteExecutor.supports_connection_test
    assert not [route for route in ROUTES if "connection-test" in route.path and route.kinds]


def test_a_callback_asks_what_its_supervisor_can_pass_on():
    """Airflow's CallbackSubprocess handles connections and variables, and nothing else of the plane."""
    asked = {route.path.split("/")[1] for route in ROUTES if Kind.CALLBACK in route.kinds}
    assert asked == {"connections", "variables"}


def test_rows_are_unique():
    assert len(set(RULES)) == len(RULES)
