"""Airflow's client while the plane is away: what is answered, kept and waited for, and in which order."""

from __future__ import annotations

import httpx
import pytest

from jetbridge.worker import riding
from jetbridge.worker.outbox import Call, Outbox, OutboxDamagedError
from jetbridge.worker.riding import RidingClient

TI = "0190c3f4-0000-7000-8000-000000000001"
HEARTBEAT = "PUT", f"task-instances/{TI}/heartbeat"
XCOM = "POST", "xcoms/dag/run/task/key"
STATE = "PATCH", f"task-instances/{TI}/state"
VARIABLE = "GET", "variables/key"


class Plane:
    """Answers as told, then with 200 to everything; remembers what reached it."""

    def __init__(self):
        self.answers = []
        self.seen = []

    def __call__(self, request):
        target = request.url.raw_path.decode().removeprefix("/gw/execution/")
        self.seen.append((request.method, target, request.content))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, httpx.Response):
            return answer
        if isinstance(answer, int):
            return httpx.Response(answer, json={"detail": {"reason": "x"}})
        raise answer

    def goes_away(self, times=1, how=None):
        self.answers += [how or httpx.ConnectError("refused")] * times

    def targets(self):
        return [target for _, target, _ in self.seen]


@pytest.fixture
def plane():
    return Plane()


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "one.sqlite")
    yield outbox
    outbox.close()


@pytest.fixture
def client(plane, outbox, monkeypatch):
    monkeypatch.setattr(riding, "TRY_AGAIN_SECONDS", 0.0)
    client = RidingClient(
        base_url="https://plane.test/gw/execution/",
        token="the token",
        outbox=outbox,
        transport=httpx.MockTransport(plane),
    )
    # Airflow's retries are not ours to wait for here; ours are below them.
    monkeypatch.setattr(RidingClient, "request", httpx.Client.request)
    yield client
    client.close()


def make(client, call, body=b"1"):
    return client.request(*call, content=body)


def test_while_the_plane_is_there_nothing_is_kept(client, plane, outbox):
    for call in (HEARTBEAT, XCOM, STATE, VARIABLE):
        assert make(client, call).status_code == 200
    assert plane.targets() == [target for _, target in (HEARTBEAT, XCOM, STATE, VARIABLE)]
    assert not outbox.exists


def test_a_heartbeat_is_answered_and_forgotten(client, plane, outbox):
    plane.goes_away()
    assert make(client, HEARTBEAT).status_code == 204
    assert not outbox.exists


@pytest.mark.parametrize(
    "how",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("no answer"),
        httpx.RemoteProtocolError("cut"),
        httpx.Response(502, json={}),
        httpx.Response(503, json={"type": "urn:jetbridge:problem:unavailable"}),
        httpx.Response(404, html="<h1>no such site</h1>"),
    ],
    ids=repr,
)
def test_what_is_kept_goes_first_when_the_plane_is_back(client, plane, outbox, how):
    plane.goes_away(how=how)
    assert make(client, XCOM, b"first").status_code == 201
    assert make(client, XCOM, b"second").status_code == 200
    assert [body for _, _, body in plane.seen] == [b"first", b"first", b"second"]
    assert outbox.first() is None


def test_as_long_as_something_is_kept_nothing_overtakes_it(client, plane, outbox):
    plane.goes_away(times=2)
    make(client, XCOM, b"1")
    make(client, STATE, b"2")
    assert set(plane.targets()) == {XCOM[1]}
    assert outbox.kept_end() is not None
    assert make(client, HEARTBEAT).status_code == 200
    assert plane.targets()[-3:] == [XCOM[1], STATE[1], HEARTBEAT[1]]


def test_a_question_waits_for_its_answer(client, plane):
    plane.goes_away(times=3)
    assert make(client, VARIABLE).status_code == 200
    assert plane.targets() == [VARIABLE[1]] * 4


def test_airflows_own_error_is_not_answered_with_yes(client, plane, outbox):
    plane.answers = [500]
    with pytest.raises(httpx.HTTPStatusError):
        make(client, XCOM)
    assert not outbox.exists


def test_what_is_refused_later_stays_for_the_agent_and_heartbeats_go_on(client, plane, outbox):
    plane.goes_away()
    make(client, XCOM, b"bad")
    plane.answers = [400]
    assert make(client, HEARTBEAT).status_code == 200
    assert make(client, STATE, b"end").status_code == 204
    assert plane.targets() == [XCOM[1], XCOM[1], HEARTBEAT[1]]
    assert outbox.first().body == b"bad"


def test_a_lost_lease_is_heard_of(client, plane):
    plane.goes_away()
    make(client, XCOM)
    plane.answers = [410, 410]
    with pytest.raises(httpx.HTTPStatusError):
        make(client, HEARTBEAT)


def test_while_the_plane_is_known_to_be_away_it_is_not_asked_each_time(client, plane, monkeypatch):
    monkeypatch.setattr(riding, "TRY_AGAIN_SECONDS", 3600.0)
    plane.goes_away()
    for call in (XCOM, HEARTBEAT, STATE):
        make(client, call)
    assert plane.targets() == [XCOM[1]]


def test_calls_are_kept_as_they_were_made(client, plane, outbox):
    plane.goes_away()
    client.request("POST", "xcoms/dag/run%2F1/task/a key", params={"map_index": 2}, json={"a": 1})
    kept = outbox.first()
    assert (kept.method, kept.target) == ("POST", "xcoms/dag/run%2F1/task/a%20key?map_index=2")
    assert set(kept.headers) == {"content-type", "airflow-api-version"}
    assert "token" not in str(kept.headers)
    assert kept.body == b'{"a":1}'


def test_a_damaged_outbox_says_yes_to_nothing(client, plane, outbox):
    outbox.path.write_bytes(b"garbage" * 1000)
    with pytest.raises(OutboxDamagedError):
        make(client, XCOM)
    assert plane.seen == []


def test_a_full_outbox_has_the_call_wait(plane, tmp_path, client):
    small = Outbox(tmp_path / "small.sqlite", max_bytes=64 << 10)
    small.keep(Call(method="POST", target="xcoms/dag/run/task/0"))
    client._outbox = small
    plane.goes_away(times=2)
    assert make(client, XCOM, b"x" * (128 << 10)).status_code == 200
    assert plane.targets() == ["xcoms/dag/run/task/0"] * 3 + [XCOM[1]]
