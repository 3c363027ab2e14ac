"""Who parsed and who waited, as the demo reads it from Airflow's answers and from the names of logs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jetbridge.devstack import whereabouts

RUN = "dag_id=orders/run_id=manual__2026/"


class FakeClient:
    """Airflow's answers by path."""

    def __init__(self, **answers):
        self.answers = answers

    def get(self, path, **parameters):
        return self.answers["_".join([path.rpartition("/")[2], *map(str, parameters.values())])]


@pytest.fixture
def logs(monkeypatch):
    """What is in the store for logs; names below anything else than the run are not asked for."""
    names = []

    def list_objects(bucket, prefix, *, recursive):
        assert (bucket, recursive) == (whereabouts.LOGS_BUCKET, True)
        return [SimpleNamespace(object_name=name) for name in names if name.startswith(prefix)]

    monkeypatch.setattr(whereabouts, "client_of", lambda _: SimpleNamespace(list_objects=list_objects))
    return names


def test_the_commit_is_that_of_the_newest_version():
    versions = [{"version_number": number, "bundle_version": f"c{number}"} for number in (2, 10, 9)]
    assert whereabouts.commit_of(FakeClient(dagVersions={"dag_versions": versions}), "orders") == "c10"


def test_parsers_go_by_their_names():
    jobs = {"jobs": [{"hostname": "b"}, {"hostname": "a"}]}
    assert whereabouts.parsers(FakeClient(jobs_DagProcessorJob_True=jobs)) == ["a", "b"]


def test_a_trigger_s_log_says_which_task_waited_and_where(logs):
    client = FakeClient(jobs_TriggererJob={"jobs": [{"id": 12, "hostname": "waiter"}]})
    logs += [
        f"{RUN}task_id=waits/attempt=1.log.trigger.12.log.b38d.log",
        f"{RUN}task_id=mapped/map_index=3/attempt=2.log.trigger.13.log.77aa.log",
        f"{RUN}task_id=works/attempt=1.log.09cd.log",
        "dag_id=orders/run_id=other/task_id=waits/attempt=1.log.trigger.12.log.b38d.log",
    ]
    waits = whereabouts.waits_of_run(client, None, "orders", "manual__2026")
    assert [(wait.task_id, wait.triggerer) for wait in waits] == [("waits", "waiter"), ("mapped", "job 13")]
    assert waits[0].log_uri == f"s3://jetbridge-logs/{logs[0]}"
