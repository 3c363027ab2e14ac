"""
A task in each of some queues, which holds data of every class; the policy of its queue opens one of them.

Agents keep back what is closed by themselves. What crosses only when a task goes past its agent's stores, or
asks the plane for it, is handed over in the one queue where that is open: elsewhere it would be refused, by a
gateway that has read it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pendulum
from airflow.sdk import DAG, Asset, BaseHook, BaseOperator, BaseOperatorLink
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time import comms, task_runner

HELD = json.loads(Path(__file__).with_name("held.json").read_text())
NOW = pendulum.datetime(2026, 1, 1)
PLACE = Asset("held-place")


class Link(BaseOperatorLink):
    name = "Where it went"

    def get_link(self, operator, *, ti_key):  # noqa: ARG002 - Airflow's
        return f"https://example.com/{HELD[operator.queue]['operator-links']}"


def xcom(ti, mark):
    where = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id}
    BaseXCom.set("as it is", {"value": mark}, **where)


def connection(_ti, mark):
    assert BaseHook.get_connection("of_the_plane").password == mark


def says(message):
    """Return what says ``message(ti, mark)`` to the supervisor, as the accessors of a task's context do."""

    def hand_over(ti, mark):
        answer = task_runner.SUPERVISOR_COMMS.send(message(ti, mark))
        assert not isinstance(answer, comms.ErrorResponse), answer

    return hand_over


HANDED_OVER = {
    "connections": connection,
    "xcom-values": xcom,
    "state-store-values": says(
        lambda ti, mark: comms.SetTaskStateStore(ti_id=ti.id, key="as it is", value=mark, expires_at=None)
    ),
    "run-conf": says(
        lambda _ti, mark: comms.TriggerDagRun(dag_id="held_target", run_id="told", conf={"a": {"b": mark}})
    ),
    "human-input": says(
        lambda ti, mark: comms.CreateHITLDetailPayload(
            ti_id=ti.id, options=["yes"], subject=mark, params={}, assigned_users=[]
        )
    ),
    "variables": says(lambda _ti, mark: comms.PutVariable(key="written", value=mark, description=None)),
}


class Holding(BaseOperator):
    template_fields = ("field",)
    operator_extra_links = (Link(),)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.field = "{{ task.held['rendered-fields'] }}"

    @property
    def held(self):
        return HELD[self.queue]

    def execute(self, context):
        ti = context["ti"]
        context["outlet_events"][PLACE].extra = {"rows": self.held["asset-event-extra"]}
        context["task_state_store"].set("key", {"value": self.held["state-store-values"]})
        if self.queue in HANDED_OVER:
            HANDED_OVER[self.queue](ti, self.held[self.queue])
        self.log.info("everything this task holds: %s", self.held)
        return {"nested": [self.held["xcom-values"]]}


with DAG("held", schedule=None, start_date=NOW, catchup=False):
    for queue in HELD:
        Holding(task_id=queue, queue=queue, outlets=[PLACE])

with DAG("held_target", schedule=None, start_date=NOW, catchup=False):
    """Stays paused, so that its run never begins."""
