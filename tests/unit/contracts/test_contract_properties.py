"""Property-based: what is written is read back, and no bytes crash the readers."""

import re
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetbridge.contracts import api
from jetbridge.contracts.envelope import MessageError, open_envelope, read_body, seal
from jetbridge.contracts.ids import AgentToken, InvalidIdError, LeaseKey
from jetbridge.contracts.messages import ALL_BODIES, TaskCoordinates, WorkloadKind, WorkloadSubmitted
from jetbridge.contracts.subjects import Band, lane_of, work_subject

uuids = st.uuids().map(str)
coordinates = st.builds(
    TaskCoordinates,
    dag_id=st.text(max_size=50),
    run_id=st.text(max_size=50),
    task_id=st.text(max_size=50),
    map_index=st.integers(-1, 10_000),
    try_number=st.integers(0, 100),
)


@given(uuids, st.integers(1, 2**62), st.sampled_from(WorkloadKind), st.text(max_size=80), coordinates)
def test_submitted_round_trips(workload_id, submission, kind, queue, where):
    body = WorkloadSubmitted(
        workload_id=workload_id,
        submission=submission,
        kind=kind,
        queue=queue,
        coordinates=where,
        spec=msgspec.Raw(b'{"ti":{}}'),
    )
    read = read_body(open_envelope(seal(body, message_id="m", traceparent=None)), *ALL_BODIES)
    assert msgspec.json.encode(read) == msgspec.json.encode(body)


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(data):
    with pytest.raises(MessageError, match=r"."):
        read_body(open_envelope(data), *ALL_BODIES)


@given(uuids, st.integers(1, 2**62))
def test_lease_key_round_trips(workload_id, epoch):
    assert LeaseKey.parse(str(LeaseKey(workload_id, epoch))) == (workload_id, epoch)


@given(st.text(max_size=80))
def test_anything_else_is_no_lease(text):
    if not re.fullmatch(r"[0-9a-f-]{36}\.[1-9][0-9]*", text):
        with pytest.raises(InvalidIdError):
            LeaseKey.parse(text)


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300), st.sampled_from(Band))
def test_lanes_are_safe_subject_tokens_and_never_shared(queue, other, band):
    subject = work_subject(lane_of(queue), band)
    assert set(subject) <= set(string.ascii_lowercase + string.digits + "._-")
    assert subject.count(".") == 2
    assert (lane_of(queue) == lane_of(other)) == (queue == other)


@pytest.mark.parametrize("queue", ["default", "gpu-a100", "team_a", "0"])
def test_plain_queue_names_stay_readable(queue):
    assert lane_of(queue) == queue


def test_token_round_trips_and_hides_its_secret():
    token = AgentToken.generate()
    assert AgentToken.parse(str(token)) == token
    assert token.secret not in repr(token)


@given(st.text(max_size=90))
def test_error_about_a_bad_token_never_repeats_it(text):
    with pytest.raises(InvalidIdError) as caught:
        AgentToken.parse("x" + text)
    assert len(text) < 4 or text not in str(caught.value)


@given(
    st.dictionaries(st.sampled_from(["free_slots", "leases", "wait_seconds", "contract", "x"]), st.integers())
)
def test_poll_request_is_either_in_bounds_or_refused(fields):
    try:
        poll = msgspec.convert(fields, api.PollRequest)
    except msgspec.ValidationError:
        return
    assert 0 <= poll.free_slots <= api.MAX_SLOTS
    assert 0 <= poll.wait_seconds <= api.MAX_WAIT_SECONDS
    assert "x" not in fields


@pytest.mark.parametrize(
    ("weight", "band"),
    [
        (-5, Band.NORMAL),
        (1, Band.NORMAL),
        (9, Band.NORMAL),
        (10, Band.HIGH),
        (99, Band.HIGH),
        (100, Band.URGENT),
    ],
)
def test_bands_follow_orders_of_magnitude(weight, band):
    assert Band.of(weight) is band
