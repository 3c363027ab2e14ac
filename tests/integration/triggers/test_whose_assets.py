"""Of which assets a task or a trigger may read events and use the store: those that its Dag names."""

import uuid

import pytest
from airflow.models.asset import AssetAliasModel, AssetModel
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import Asset, AssetAlias
from airflow.utils.session import create_session
from site_triggers import FileTrigger, FolderWatcher
from sqlalchemy import select

from jetbridge.contracts.assets import FindOwnAssets, OwnAssets
from jetbridge.scheduler.bridge.assets import find_own

from .world import forget_triggers


@pytest.fixture(autouse=True)
def nothing_left_over(no_triggers):  # noqa: ARG001
    forget_triggers()


def new_name():
    return f"asset-{uuid.uuid4().hex[:8]}"


def asset(name):
    return Asset(name=name, uri=f"test://assets/{name}")


def own(**of_whom):
    with create_session() as session:
        return find_own(session, FindOwnAssets(**of_whom))


@pytest.fixture
def dag_of(world):
    """Have a Dag of one operator known; returns a task instance of it."""

    def make(operator):
        dag_id = f"dag-{uuid.uuid4().hex[:8]}"
        world.sync_dag(operator, dag_id=dag_id)
        return world.task_instance(dag_id)

    return make


def test_inlets_and_outlets_of_the_task_however_they_are_named(dag_of):
    one, two, named, addressed, alias = (new_name() for _ in range(5))
    inlets = [asset(one), Asset.ref(name=named), Asset.ref(uri=f"test://assets/{addressed}")]
    ti = dag_of(lambda: EmptyOperator(task_id="task", inlets=inlets, outlets=[asset(two), AssetAlias(alias)]))
    assert own(task_instance=ti) == OwnAssets(
        names=tuple(sorted([one, two, named])),
        uris=tuple(sorted(f"test://assets/{name}" for name in (one, two, addressed))),
        aliases=(alias,),
    )


def test_what_an_alias_among_the_inlets_stands_for_now(dag_of):
    alias, name = new_name(), new_name()
    ti = dag_of(lambda: EmptyOperator(task_id="task", inlets=[AssetAlias(alias)]))
    assert own(task_instance=ti) == OwnAssets(aliases=(alias,))
    with create_session() as session:
        row = session.scalar(select(AssetAliasModel).where(AssetAliasModel.name == alias))
        row.assets.append(AssetModel(name=name, uri=f"test://assets/{name}"))
    assert own(task_instance=ti) == OwnAssets(
        names=(name,), uris=(f"test://assets/{name}",), aliases=(alias,)
    )


def test_a_mapped_task(world):
    name, dag_id = new_name(), f"dag-{uuid.uuid4().hex[:8]}"
    world.sync_dag(
        lambda: BashOperator.partial(task_id="task", outlets=[asset(name)]).expand(bash_command=["a", "b"]),
        dag_id=dag_id,
    )
    ti = world.task_instance(dag_id)
    assert own(task_instance=ti).names == (name,)


def test_what_a_trigger_watches(world):
    name = new_name()
    world.watch(name, FolderWatcher("/nonexistent"))
    with create_session() as session:
        (trigger,) = session.scalar(select(AssetModel).where(AssetModel.name == name)).watchers
        number = trigger.trigger_id
    assert own(trigger_id=number) == OwnAssets(names=(name,), uris=(f"test://{name}/",))
    assert own(trigger_id=2**30) == OwnAssets()
    assert own(task_instance=str(uuid.uuid4())) == OwnAssets()


@pytest.fixture
def tokens_of(agent_client, eventually):
    """Return how a trigger asks Airflow; it is held by an agent by hand."""

    def ask_as(begin):
        post = agent_client()
        number = post("triggerer", {}).json()["triggerer"]
        begin()
        body = {"triggerer": number, "wait_seconds": 0}
        start = eventually(lambda: post("triggers/poll", body).json().get("start"))
        token = start[0]["token"]

        def ask(method, path, **body):
            headers = {"Authorization": f"Bearer {token}"}
            return post.client.request(method, f"/execution/{path}", headers=headers, **body)

        return ask

    return ask_as


REFERENCE = {"value": {"__airflow_state_ref__": "s3://bucket/key"}}


def test_a_watcher_uses_the_store_of_what_it_watches_and_no_other(world, tokens_of):
    mine, other = new_name(), new_name()
    world.sync_dag(
        lambda: EmptyOperator(task_id="task", outlets=[asset(other)]), dag_id=f"dag-{uuid.uuid4().hex[:8]}"
    )
    ask = tokens_of(lambda: world.watch(mine, FolderWatcher("/nonexistent")))  # at test://NAME/
    path = "store/asset/by-name/{}?name={}&key=k"
    assert ask("PUT", path.format("value", mine), json=REFERENCE).status_code == 204
    assert ask("GET", path.format("value", mine)).json() == REFERENCE
    assert ask("GET", f"store/asset/by-uri/value?uri=test://{mine}/&key=k").json() == REFERENCE
    for method, way in (("GET", "value"), ("PUT", "value"), ("DELETE", "value"), ("DELETE", "clear")):
        answer = ask(method, path.format(way, other), json=REFERENCE)
        assert answer.status_code == 403, (method, way)
        assert "JETBRIDGE_GATEWAY_OTHER_DAGS=assets,states,trigger" in answer.json()["detail"]
    assert ask("GET", f"store/asset/by-name/value?name={mine}&name={other}&key=k").status_code == 403


def test_a_tasks_trigger_uses_the_stores_of_its_tasks_assets(world, tokens_of, dag_of):
    mine = new_name()
    ti = dag_of(lambda: EmptyOperator(task_id="task", outlets=[asset(mine)]))
    ask = tokens_of(lambda: world.defer(FileTrigger("/nonexistent"), ti_id=ti))
    assert ask("PUT", f"store/asset/by-name/value?name={mine}&key=k", json=REFERENCE).status_code == 204
    assert ask("GET", f"store/asset/by-name/value?name={new_name()}&key=k").status_code == 403
