"""Who may ask what of Airflow's Execution API, by the rules alone."""

import pytest

from jetbridge.contracts.assets import OwnAssets
from jetbridge.contracts.messages import TaskCoordinates
from jetbridge.gateway.execution_rules import (
    ROUTES,
    Asker,
    Kind,
    NotAllowedError,
    OtherDags,
    check,
    find,
    needs_assets,
    needs_dag,
)

TI = "0198a0e0-0000-7000-8000-000000000001"
OTHER_TI = "0198a0e0-0000-7000-8000-000000000002"
RUN = "manual__2026-01-01T00:00:00+00:00"
MAPPED = TaskCoordinates(dag_id="d", run_id=RUN, task_id="t", map_index=3)
PLAIN = TaskCoordinates(dag_id="d", run_id=RUN, task_id="t")
DEFAULT = frozenset({OtherDags.STATES, OtherDags.TRIGGER})
OWN_XCOM, OTHERS_XCOM = f"/xcoms/d/{RUN}/t/k", f"/xcoms/d/{RUN}/u/k"

ASSETS = OwnAssets(names=("a", "b"), uris=("s3://a", "s3://b"), aliases=("l",))


def asker(kind=Kind.TASK, coordinates=PLAIN):
    return Asker(kind=kind, task_instance=TI, coordinates=coordinates, dags=frozenset({"d"}), assets=ASSETS)


TASK, TRIGGER, CALLBACK = asker(), asker(Kind.TRIGGER), asker(Kind.CALLBACK)
MAPPED_TASK = asker(coordinates=MAPPED)
WATCHER = Asker(kind=Kind.TRIGGER, trigger=7, assets=OwnAssets(names=("a",), uris=("s3://a",)))
PROCESSOR = Asker(kind=Kind.DAG_PROCESSOR, dags=frozenset({"d"}))


def allowed(asker, method, target, others=DEFAULT):
    try:
        check(find(method, target), asker, others)
    except NotAllowedError:
        return False
    return True


@pytest.mark.parametrize(
    ("who", "method", "target", "expected"),
    [
        (TASK, "PATCH", f"/task-instances/{TI}/run", True),
        (TASK, "PATCH", f"/task-instances/{OTHER_TI}/run", False),
        (TASK, "PATCH", f"/task-instances/{TI.upper()}/run", False),
        (TASK, "PATCH", f"/task-instances/{TI.replace('-', '')}/state", False),
        (TASK, "PUT", f"/task-instances/{OTHER_TI}/heartbeat", False),
        (TASK, "PUT", f"/task-instances/{OTHER_TI}/rtif", False),
        (TASK, "GET", f"/task-reschedules/{OTHER_TI}/start_date", False),
        (TRIGGER, "PATCH", f"/task-instances/{TI}/state", False),
        (CALLBACK, "PATCH", f"/task-instances/{TI}/state", False),
        (PROCESSOR, "PATCH", f"/task-instances/{TI}/state", False),
        (TASK, "GET", OWN_XCOM, True),
        (TASK, "GET", OTHERS_XCOM, True),
        (TASK, "GET", "/xcoms/d/another-run/u/k?include_prior_dates=true", True),
        (TASK, "GET", f"/xcoms/e/{RUN}/t/k", False),
        (TASK, "HEAD", f"/xcoms/e/{RUN}/t/k", False),
        (TASK, "GET", f"/xcoms/e/{RUN}/t/k/item/1", False),
        (TASK, "GET", f"/xcoms/e/{RUN}/t/k/slice?start=1", False),
        (TASK, "GET", f"/xcoms/%65/{RUN}/t/k", False),
        (TASK, "POST", OWN_XCOM, True),
        (TASK, "POST", f"{OWN_XCOM}?map_index=-1", True),
        (TASK, "POST", f"{OWN_XCOM}?map_index=0", False),
        (TASK, "POST", OTHERS_XCOM, False),
        (TASK, "POST", "/xcoms/d/another-run/t/k", False),
        (TASK, "DELETE", OTHERS_XCOM, False),
        (TASK, "DELETE", OWN_XCOM, True),
        (MAPPED_TASK, "POST", f"{OWN_XCOM}?map_index=3&dag_result=true", True),
        (MAPPED_TASK, "POST", OWN_XCOM, False),
        (MAPPED_TASK, "POST", f"{OWN_XCOM}?map_index=4", False),
        (MAPPED_TASK, "POST", f"{OWN_XCOM}?map_index=3&map_index=4", False),
        (MAPPED_TASK, "POST", f"{OWN_XCOM}?map_index=3&m%61p_index=4", False),
        (MAPPED_TASK, "POST", f"{OWN_XCOM}?map_index=%2B3", False),
        (MAPPED_TASK, "POST", f"{OWN_XCOM}?map_index=03", False),
        (TRIGGER, "POST", OWN_XCOM, True),
        (TRIGGER, "POST", OTHERS_XCOM, False),
        (WATCHER, "POST", OWN_XCOM, False),
        (WATCHER, "GET", OWN_XCOM, False),
        (CALLBACK, "GET", OWN_XCOM, False),
        (PROCESSOR, "GET", OWN_XCOM, True),
        (PROCESSOR, "GET", f"/xcoms/e/{RUN}/t/k", False),
        (PROCESSOR, "POST", OWN_XCOM, False),
        (TASK, "GET", "/task-instances/states?dag_id=e", True),
        (TASK, "GET", "/dag-runs/count?dag_id=e", True),
        (TASK, "GET", f"/task-instances/breadcrumbs?dag_id=d&run_id={RUN.replace('+', '%2B')}", True),
        (TASK, "GET", f"/task-instances/breadcrumbs?dag_id=d&run_id={RUN}", False),
        (TASK, "GET", "/task-instances/breadcrumbs?dag_id=d", False),
        (TASK, "GET", "/task-instances/breadcrumbs?dag_id=d&run_id=x", False),
        (TASK, "GET", f"/dag-runs/d/{RUN}", True),
        (TASK, "GET", f"/dag-runs/e/{RUN}", False),
        (TASK, "GET", "/dag-runs/e/r/state", True),
        (TASK, "POST", "/dag-runs/e/r", True),
        (TASK, "POST", "/dag-runs/e/r/clear", True),
        (TRIGGER, "POST", "/dag-runs/e/r", False),
        (TRIGGER, "GET", f"/hitlDetails/{TI}", True),
        (TRIGGER, "PATCH", f"/hitlDetails/{OTHER_TI}", False),
        (WATCHER, "PATCH", f"/hitlDetails/{TI}", False),
        (TASK, "PUT", f"/store/ti/{TI}/a%2Fb", True),
        (TASK, "PUT", f"/store/ti/{OTHER_TI}/a%2Fb", False),
        (TASK, "DELETE", f"/store/ti/{OTHER_TI}", False),
        (TRIGGER, "PUT", f"/store/ti/{TI}/k", False),
        (WATCHER, "PUT", "/store/asset/by-name/value?name=a&key=k", True),
        (WATCHER, "PUT", "/store/asset/by-name/value?name=b&key=k", False),
        (CALLBACK, "PUT", "/store/asset/by-name/value?name=a&key=k", False),
        (TASK, "GET", "/store/asset/by-name/value?name=a&key=k", True),
        (TASK, "GET", "/store/asset/by-name/value?name=c&key=k", False),
        (TASK, "GET", "/store/asset/by-name/value?name=a&n%61me=c&key=k", False),
        (TASK, "GET", "/store/asset/by-name/value?key=k", False),
        (TASK, "PUT", "/store/asset/by-uri/value?uri=s3%3A%2F%2Fa&key=k", True),
        (TASK, "PUT", "/store/asset/by-uri/value?uri=s3%3A%2F%2Fc&key=k", False),
        (TASK, "DELETE", "/store/asset/by-name/clear?name=c", False),
        (TASK, "DELETE", "/store/asset/by-uri/clear?uri=a", False),
        (TASK, "GET", "/asset-events/by-asset?name=a&uri=s3://a", True),
        (TASK, "GET", "/asset-events/by-asset?name=a&uri=", True),
        (TASK, "GET", "/asset-events/by-asset?name=&uri=s3://b", True),
        (TASK, "GET", "/asset-events/by-asset?name=a&uri=s3://c", False),
        (TASK, "GET", "/asset-events/by-asset?name=&uri=", False),
        (TASK, "GET", "/asset-events/by-asset-alias?name=l", True),
        (TASK, "GET", "/asset-events/by-asset-alias?name=a", False),
        (TASK, "GET", "/assets/by-name?name=c", True),
        (CALLBACK, "GET", "/connections/c", True),
        (CALLBACK, "PUT", "/variables/v", False),
        (PROCESSOR, "GET", "/connections/c", False),
        (PROCESSOR, "GET", "/variables/v", False),
        (TASK, "GET", f"/connection-tests/{TI}/connection", False),
        (TASK, "GET", "/health", False),
        (TASK, "GET", "/unheard-of", False),
        (TASK, "PUT", OWN_XCOM, False),
        (TASK, "GET", "/variables/", True),
        (TASK, "OPTIONS", "/variables/v", False),
    ],
)
def test_the_table(who, method, target, expected):
    assert allowed(who, method, target) is expected


@pytest.mark.parametrize(
    ("method", "target", "opened_by"),
    [
        ("GET", "/task-instances/count?dag_id=e", OtherDags.STATES),
        ("GET", "/dags/e", OtherDags.STATES),
        ("POST", "/dag-runs/e/r", OtherDags.TRIGGER),
        ("GET", "/dag-runs/e/r", OtherDags.RUNS),
        ("GET", "/xcoms/e/r/t/k", OtherDags.XCOMS),
        ("GET", "/asset-events/by-asset-alias?name=other", OtherDags.ASSETS),
        ("PUT", "/store/asset/by-name/value?name=other", OtherDags.ASSETS),
    ],
)
def test_other_dags_are_as_far_as_the_settings_open_them(method, target, opened_by):
    assert allowed(TASK, method, target, frozenset({opened_by}))
    assert not allowed(TASK, method, target, frozenset(OtherDags) - {opened_by})
    needs = needs_assets if opened_by is OtherDags.ASSETS else needs_dag
    assert needs(find(method, target), frozenset())
    assert not needs(find(method, target), frozenset({opened_by}))


def test_writing_into_other_tasks_is_opened_by_nothing():
    for method in ("POST", "DELETE"):
        assert not allowed(TASK, method, OTHERS_XCOM, frozenset(OtherDags))


def test_a_refusal_says_what_opens_it():
    with pytest.raises(NotAllowedError, match="JETBRIDGE_GATEWAY_OTHER_DAGS=states,trigger,xcoms"):
        check(find("GET", "/xcoms/e/r/t/k"), TASK, DEFAULT)


def test_a_trigger_that_no_task_waits_for_reaches_no_task():
    for route in ROUTES:
        if "{task_instance_id}" in route.path:
            target = route.path.replace("{task_instance_id}", "None").replace("{key:path}", "k")
            assert not allowed(WATCHER, route.method, target), route
