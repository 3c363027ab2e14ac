"""Which tasks leave a supervisor that may be used again."""

from __future__ import annotations

from typing import get_args

import pytest
from airflow.sdk.execution_time import comms

from jetbridge.worker.residue import HARMLESS, Residue

MESSAGES = get_args(get_args(comms.ToSupervisor)[0])
SECRET = (
    comms.GetConnection,
    comms.GetVariable,
    comms.MaskSecret,
    comms.PutVariable,
    comms.DeferTask,
    comms.GetTaskStateStore,
    comms.GetAssetStateStoreByName,
    comms.TriggerDagRun,
    comms.RetryTask,
    comms.TaskState,
)


def test_what_is_harmless_is_a_message_of_this_airflow():
    assert set(HARMLESS) <= set(MESSAGES)


@pytest.mark.parametrize("kind", SECRET, ids=lambda kind: kind.__name__)
def test_after_these_the_supervisor_is_not_used_again(kind):
    residue = Residue(is_known=True)
    residue.note(kind.model_construct())
    assert not residue.is_harmless


def test_a_task_that_only_succeeds_leaves_nothing():
    residue = Residue(is_known=True)
    for kind in (comms.SetRenderedFields, comms.SetXCom, comms.SucceedTask):
        residue.note(kind.model_construct())
    assert residue.is_harmless


def test_what_nobody_looked_at_counts_as_secret():
    assert not Residue().is_harmless
    residue = Residue(is_known=True)
    residue.note(object())
    residue.note(comms.SucceedTask.model_construct())
    assert not residue.is_harmless


def test_the_next_workload_begins_anew():
    residue = Residue(is_known=True, has_secrets=True)
    residue.forget()
    assert (residue.is_known, residue.has_secrets) == (False, False)
