"""Airflow's own supervisor and task runner, in forks of the real fork server, against an Execution API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import uuid

import msgspec
import psutil
import pytest
import pytest_asyncio

from jetbridge.agent.lease_clock import lease_time
from jetbridge.contracts.messages import Outcome
from jetbridge.worker.airflow_env import airflow_env, execution_api
from jetbridge.worker.endings import FENCED
from jetbridge.worker.execute import LEASE_VARIABLE
from jetbridge.worker.forkserver_client import ForkServerKeeper, Launch
from jetbridge.worker.frames import Hold, Order

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECONDS = 60


class Warm:
    """One fork server for all tests of this module; each runs workloads of its own in it."""

    def __init__(self, plane, keeper, probe_dir, data_dir):
        self.plane = plane
        self.keeper = keeper
        self.probe_dir = probe_dir
        self.data_dir = data_dir
        self.good_for_seconds = 3600.0

    async def run(self, spec, dag_id="probes"):
        """Run a workload to its end."""
        return await asyncio.wait_for(self.start(spec, dag_id=dag_id), SECONDS)

    async def start(self, spec, good_seconds=0.0, dag_id="probes"):
        lease = lease_of(spec)
        spec_json = msgspec.Raw(msgspec.json.encode(spec))
        order = Order(
            lease=lease,
            spec=spec_json,
            token=f"token-of-{lease}",
            dag_id=dag_id,
            traceparent=f"00-{uuid.uuid4().hex}-{'1' * 16}-01",  # as Airflow's, traced or not
        )
        return await self.keeper.run(order, good_for(self.good_for_seconds), good_seconds)

    async def shown(self, name):
        """Wait for what a task shows."""
        path = self.probe_dir / f"{name}.json"
        await self.plane.gateway.until(path.exists, SECONDS)
        facts = json.loads(path.read_text())
        path.unlink()
        return facts

    async def gone(self, *pids):
        await self.plane.gateway.until(lambda: not any(map(alive, pids)), SECONDS)


def good_for(seconds):
    now = lease_time()
    return Hold(until=now + seconds, heard_at=now)


def lease_of(spec):
    return f"{(spec.get('ti') or spec['callback'])['id']}.1"


def alive(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@contextlib.asynccontextmanager
async def new_fork_server(new_plane, site_env, tmp_path_factory):
    probe_dir, data_dir = (tmp_path_factory.mktemp(name) for name in ("probes", "data"))
    inherited = {
        **os.environ,
        **site_env(probe_dir),
        "JETBRIDGE_AGENT_TOKEN_FILE": "/run/secrets/agent-token",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{probe_dir}/planted.db",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": f"echo sqlite:///{probe_dir}/planted.db",
        "_AIRFLOW_PROCESS_CONTEXT": "server",
    }
    async with new_plane() as plane:
        env = airflow_env(inherited, agent_name="a1", gateway=plane.url, ca_file=None, data_dir=data_dir)
        launch = Launch(env, execution_api(plane.url), tasks_per_supervisor=50)
        keeper = ForkServerKeeper(launch, bury=_nothing_to_bury)
        keeping = asyncio.create_task(keeper.keep(lambda: None))
        await asyncio.wait_for(keeper.wait_ready(), SECONDS)
        yield Warm(plane, keeper, probe_dir, data_dir)
        keeping.cancel()
        await asyncio.wait({keeping})
        await keeper.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(new_plane, site_env, tmp_path_factory):
    async with new_fork_server(new_plane, site_env, tmp_path_factory) as warm:
        yield warm


@pytest_asyncio.fixture(loop_scope="module")
async def own(new_plane, site_env, tmp_path_factory):
    """A fork server of one test's own: the fence kills everything in it."""
    async with new_fork_server(new_plane, site_env, tmp_path_factory) as own:
        yield own


async def _nothing_to_bury():
    """Leave alone what else runs below the test's process."""
    return True


async def test_a_task_that_succeeds(warm, specs):
    spec = specs.task("succeeds")
    ended = await warm.run(spec)
    assert (ended.outcome, ended.exit_code, ended.reason) == (Outcome.SUCCEEDED, 0, "")
    ti_id = spec["ti"]["id"]
    (run,) = warm.plane.calls_of(ti_id, "/run")
    assert run.body["hostname"] == "a1"
    assert warm.plane.states_of(ti_id) == ["success"]
    (xcom,) = [call for call in warm.plane.api_calls if call.path == "xcoms/probes/run/succeeds/return_value"]
    assert xcom.body == "value"
    assert {call.token for call in warm.plane.calls_of(ti_id)} == {f"token-of-{lease_of(spec)}"}
    log = (warm.data_dir / "logs" / "probes" / "succeeds.log").read_text()
    assert "Pushing xcom" in log
    assert "token-of-" not in log


async def test_a_task_that_fails_is_a_process_that_ended_well(warm, specs):
    spec = specs.task("fails")
    ended = await warm.run(spec)
    assert (ended.outcome, ended.exit_code, ended.reason) == (Outcome.SUCCEEDED, 0, "")
    assert warm.plane.states_of(spec["ti"]["id"]) == ["failed"]


@pytest.mark.parametrize(("task_id", "exit_code"), [("exits", 3), ("is_killed", -9)])
async def test_a_task_whose_interpreter_ends_early(warm, specs, task_id, exit_code):
    spec = specs.task(task_id)
    ended = await warm.run(spec)
    assert (ended.outcome, ended.exit_code) == (Outcome.SUCCEEDED, exit_code)
    assert warm.plane.states_of(spec["ti"]["id"]) == ["failed"]


async def test_a_supervisor_that_is_killed_takes_its_task_along_and_is_a_failure(warm, specs):
    spec = specs.task("lingers")
    running = asyncio.create_task(warm.run(spec))
    task = await warm.shown("lingers")
    os.kill(task["ppid"], 9)
    ended = await running
    assert ended.outcome is Outcome.FAILED
    assert "killed by SIGKILL" in ended.reason
    await warm.gone(task["pid"], *task["children"])


async def test_a_task_that_is_handed_over_tells_airflow_nothing_and_has_left_nothing(warm, specs):
    spec = specs.task("lingers")
    running = asyncio.create_task(warm.run(spec))
    task = await warm.shown("lingers")
    await warm.keeper.hand_over(lease_of(spec))
    ended = await running
    # Already now, and not soon: the next attempt may begin elsewhere the moment this is reported.
    assert not [pid for pid in (task["pid"], task["ppid"], *task["children"]) if alive(pid)]
    assert ended.outcome is Outcome.ABANDONED
    assert warm.plane.states_of(spec["ti"]["id"]) == []


async def test_an_execution_api_that_refuses_is_a_failure_with_a_reason(warm, specs):
    spec = specs.task("succeeds")
    warm.plane.lost.add(spec["ti"]["id"])
    ended = await warm.run(spec)
    assert ended.outcome is Outcome.FAILED
    assert ended.reason == (
        f"ServerResponseError: PATCH /execution/task-instances/{spec['ti']['id']}/run answered 410"
    )


async def test_a_workload_this_airflow_cannot_read_is_a_failure_that_names_the_field(warm, specs):
    spec = specs.task("succeeds")
    del spec["ti"]["dag_id"]
    spec["ti"]["run_id"] = {"secret": "hunter2"}
    ended = await warm.run(spec)
    assert ended.outcome is Outcome.FAILED
    assert "ti.dag_id" in ended.reason
    assert "hunter2" not in ended.reason


async def test_callbacks(warm, specs):
    spec = specs.callback("probes.told", one=1)
    ended = await warm.run(spec)
    assert ended.outcome is Outcome.SUCCEEDED
    assert (await warm.shown("callback"))["facts"] == {"one": "1"}
    failed = await warm.run(specs.callback("probes.told_and_fails"))
    assert failed.outcome is Outcome.FAILED
    assert failed.reason == "RuntimeError: the worker's log has the details"


async def around(warm, specs):
    spec = specs.task("looks_around")
    assert (await warm.run(spec)).exit_code == 0
    return await warm.shown(f"around-{run_of(warm, spec).body['pid']}")


def run_of(warm, spec):
    """Return the call that a task began with."""
    (run,) = warm.plane.calls_of(spec["ti"]["id"], "/run")
    return run


def sockets_of(task):
    return {where for where in task["descriptors"].values() if where.startswith("socket:")}


async def test_what_a_task_can_see(warm, specs):
    one, other = await asyncio.gather(*(around(warm, specs) for _ in range(2)))
    assert one["random"] != other["random"]
    assert one["uuid"] != other["uuid"]
    for task in (one, other):
        assert [name for name in task["environ"] if name.startswith("JETBRIDGE_AGENT_")] == [
            "JETBRIDGE_AGENT_NAME"
        ]
        assert "agent-token" not in str(task["environ"])
        # Airflow's four sockets to the supervisor: requests, output, errors, logs.
        assert len(sockets_of(task)) == 4, task["descriptors"]
        assert not any("epoll" in where or "memfd" in where for where in task["descriptors"].values())


async def test_no_metadata_database_is_ever_opened(warm, specs):
    task = await around(warm, specs)
    assert "Database access is disabled" in task["database"] or "not allowed" in task["database"]
    assert not (warm.probe_dir / "planted.db").exists()


async def test_a_task_finds_its_own_token_in_memory_and_of_no_lease_of_another_dag(warm, specs):
    await warm.run(specs.task("succeeds"))
    spec = specs.task("reads_its_memory")
    await warm.run(spec, dag_id="another")
    # Its own was in the memory of its supervisor, of which Airflow makes it a copy.
    assert (await warm.shown("memory"))["tokens"] == [f"token-of-{spec['ti']['id']}"]


async def test_tasks_of_one_dag_follow_each_other_in_one_supervisor(warm, specs):
    one = await around(warm, specs)
    another = await around(warm, specs)
    assert one["ppid"] == another["ppid"]
    assert one["random"] != another["random"]
    assert one["environ"][LEASE_VARIABLE] != another["environ"][LEASE_VARIABLE]
    # Nobody asks for it again, so it goes.
    await warm.gone(another["ppid"])


async def test_a_supervisor_keeps_its_connection_and_none_of_its_tasks_has_it(warm, specs):
    tasks = [specs.task("looks_around") for _ in range(3)]
    for spec in tasks:
        await warm.run(spec)
    shown = [await warm.shown(f"around-{run_of(warm, spec).body['pid']}") for spec in tasks]
    assert len({task["ppid"] for task in shown}) == 1
    assert len({call.connection for spec in tasks for call in warm.plane.calls_of(spec["ti"]["id"])}) == 1
    for task in shown:
        assert len(sockets_of(task)) == 4, task["descriptors"]
    for spec in tasks:
        assert {call.token for call in warm.plane.calls_of(spec["ti"]["id"])} == {
            f"token-of-{lease_of(spec)}"
        }


async def test_a_connection_that_was_kept_and_is_cut_costs_no_task(warm, specs):
    one = await around(warm, specs)
    await warm.plane.stop()
    await warm.plane.start()
    assert (await around(warm, specs))["ppid"] == one["ppid"]


@pytest.mark.parametrize("before", ["asks_for_a_variable", "fails", "leaves_a_child_behind"])
async def test_what_may_have_left_something_is_the_last_task_of_its_supervisor(warm, specs, before):
    shows = await around(warm, specs)
    await warm.run(specs.task(before))
    assert (await around(warm, specs))["ppid"] != shows["ppid"]


async def test_what_a_task_leaves_behind_dies_with_it(warm, specs):
    ended = await warm.run(specs.task("leaves_a_child_behind"))
    assert ended.exit_code == 0
    await warm.gone((await warm.shown("left"))["child"])


@pytest.mark.parametrize("task_id", ["lingers", "will_not_go"])
async def test_a_stopped_workload_is_gone_with_everything_it_started(warm, specs, task_id):
    spec = specs.task(task_id)
    running = asyncio.create_task(warm.run(spec))
    task = await warm.shown({"lingers": "lingers", "will_not_go": "stubborn"}[task_id])
    await warm.keeper.stop(lease_of(spec), 0.2)
    ended = await running
    assert (ended.outcome, ended.exit_code) == (Outcome.SUCCEEDED, -9)
    await warm.gone(task["pid"], task["ppid"], *task.get("children", []))


async def test_a_lost_lease_stops_its_task_through_airflows_own_heartbeat(warm, specs):
    spec = specs.task("waits_for_the_test")
    running = asyncio.create_task(warm.run(spec))
    task = await warm.shown("waiting")
    warm.plane.lost.add(spec["ti"]["id"])
    assert (await running).outcome is Outcome.SUCCEEDED
    await warm.gone(task["pid"])
    assert warm.plane.states_of(spec["ti"]["id"]) == []


async def test_stopping_what_has_ended_does_nothing(warm, specs):
    spec = specs.task("succeeds")
    await warm.run(spec)
    await warm.keeper.stop(lease_of(spec), 0.0)
    assert (await warm.run(specs.task("succeeds"))).outcome is Outcome.SUCCEEDED


async def test_when_the_leases_are_over_everything_is_killed_without_the_agents_doing(own, specs):
    own.good_for_seconds = 3.0
    spec = specs.task("lingers")
    running = asyncio.create_task(own.run(spec))
    task = await own.shown("lingers")
    ended = await running  # nobody told the fork server to stop it
    assert (ended.outcome, ended.reason) == (Outcome.ABANDONED, FENCED)
    await own.gone(task["pid"], task["ppid"], *task["children"])
    assert own.plane.states_of(spec["ti"]["id"]) == []  # nothing was said about the task's end
    own.good_for_seconds = 3600.0
    assert (await own.run(specs.task("succeeds"))).outcome is Outcome.SUCCEEDED


async def test_a_lease_that_was_given_for_longer_outlives_the_others_and_not_its_own_time(own, specs):
    own.good_for_seconds = 3.0
    longer = asyncio.create_task(own.start(specs.task("waits_for_the_test"), good_seconds=9.0))
    task = await own.shown("waiting")
    ended = await own.run(specs.task("lingers"))
    assert (ended.outcome, ended.reason) == (Outcome.ABANDONED, FENCED)
    assert alive(task["pid"])
    assert not longer.done()
    assert (await longer).reason == FENCED
    await own.gone(task["pid"], task["ppid"])


async def test_prolonged_leases_go_on(own, specs):
    own.good_for_seconds = 3.0
    running = asyncio.create_task(own.run(specs.task("lingers")))
    task = await own.shown("lingers")
    over = time.monotonic() + 3.0
    await own.keeper.hold(good_for(3600))
    while time.monotonic() < over:
        assert alive(task["pid"])
        await asyncio.sleep(0.1)
    assert alive(task["pid"])
    os.kill(task["ppid"], 9)
    assert (await running).outcome is Outcome.FAILED
