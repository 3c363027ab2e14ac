"""What becomes of a message from WORK, for every state its record can be in."""

import uuid
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.bus.intake import Verdict, judge, read_work
from jetbridge.bus.kv import Versioned
from jetbridge.contracts.envelope import Envelope, MessageError, seal
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind, WorkloadSubmitted
from jetbridge.contracts.records import WorkloadRecord, WorkloadState

WORKLOAD = str(uuid.uuid4())
COORDINATES = TaskCoordinates(dag_id="d", run_id="r")


def message(submission: int = 5, queue: str = "default", spec: bytes = b"{}") -> WorkloadSubmitted:
    return WorkloadSubmitted(
        workload_id=WORKLOAD,
        submission=submission,
        kind=WorkloadKind.TASK,
        queue=queue,
        coordinates=COORDINATES,
        spec=msgspec.Raw(spec),
    )


def record(state: WorkloadState, submission: int, revision: int) -> Versioned[WorkloadRecord]:
    return Versioned(
        WorkloadRecord(
            workload_id=WORKLOAD,
            kind=WorkloadKind.TASK,
            state=state,
            queue="default",
            coordinates=COORDINATES,
            changed_at=datetime.now(UTC),
            submission=submission,
        ),
        revision,
    )


@pytest.mark.parametrize(
    ("workload", "verdict"),
    [
        (None, Verdict.DONE),
        (record(WorkloadState.SUBMITTED, 0, 5), Verdict.OFFER),
        (record(WorkloadState.OFFERED, 5, 9), Verdict.OFFER),
        (record(WorkloadState.LEASED, 5, 9), Verdict.DONE),
        (record(WorkloadState.FINISHED, 5, 9), Verdict.DONE),
        (record(WorkloadState.RELEASED, 5, 9), Verdict.DONE),
        (record(WorkloadState.SUBMITTED, 0, 6), Verdict.DONE),
        (record(WorkloadState.LEASED, 6, 9), Verdict.DONE),
        (record(WorkloadState.SUBMITTED, 0, 4), Verdict.UNSEEN),
        (record(WorkloadState.FINISHED, 3, 4), Verdict.UNSEEN),
    ],
)
def test_the_record_decides(workload, verdict):
    assert judge(workload, message()) is verdict


def test_every_state_has_a_verdict():
    for state in WorkloadState:
        assert judge(record(state, 5, 9), message()) in Verdict


def test_work_is_read():
    envelope, submitted = read_work(seal(message(), traceparent="00-1"), "default")
    assert submitted == message()
    assert envelope.traceparent == "00-1"


def newer(**changes) -> bytes:
    envelope = msgspec.json.decode(seal(message()), type=Envelope)
    return msgspec.json.encode(msgspec.structs.replace(envelope, **changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b'{"type":"\xff"}',
        b"[" * 100_000,
        seal(message())[:-1],
        seal(message(queue="other")),
        newer(version=2),
        newer(type="workload.imagined"),
        newer(body=msgspec.Raw(b'{"workload_id":"../x"}')),
        newer(body=msgspec.Raw(b'{"workload_id":"\xff"}')),
    ],
)
def test_what_can_never_be_used_is_told_apart(data):
    with pytest.raises(MessageError):
        read_work(data, "default")


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_work_or_an_error(data):
    with pytest.raises(MessageError):
        read_work(data, "default")
