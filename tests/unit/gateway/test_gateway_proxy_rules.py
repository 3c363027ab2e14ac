"""Which paths and headers go on to Airflow, and which come back."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jetbridge.gateway.proxy_rules import PathError, forwarded_headers, returned_headers, upstream_target

TI = "0198a0e0-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (f"task-instances/{TI}/run", ""),
        (f"task-instances/{TI}/heartbeat", ""),
        ("xcoms/dag.id/manual__2026-01-01T00:00:00+00:00/task.id/return_value", "map_index=1&x=a%2Fb"),
        ("xcoms/d/r/t/%C3%A9%20x", ""),
        ("variables/a/b/c", ""),
        ("variables/50%25", ""),
        (f"store/ti/{TI}/{quote('a/b?c', safe='')}", ""),
        ("dag-runs/d/r/state", "dag_ids=a&dag_ids=b[]"),
    ],
)
def test_what_airflows_client_sends_goes_on_byte_for_byte(path, query):
    target = upstream_target(f"/execution/{path}".encode(), query.encode())
    assert target == f"/execution/{path}" + (f"?{query}" if query else "")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/agents",
        "/execution",
        "/execution/",
        "//execution/x",
        "/Execution/x",
        "/%65xecution/x",
        "http://airflow/execution/x",
        "/execution/.",
        "/execution/..",
        "/execution/a/../b",
        "/execution/%2e%2E/b",
        "/execution/.%2e/b",
        "/execution/a//b",
        "/execution/a/",
        "/execution/a%2fb",
        "/execution/a%2F..%2Fb",
        "/execution/a\\b",
        "/execution/a%5Cb",
        "/execution/a%00",
        "/execution/a%0d%0ab",
        "/execution/%252e%252e",
        "/execution/a%252fb",
        "/execution/a%",
        "/execution/a%zz",
        "/execution/é",
        "/execution/a b",
        "/execution/a#b",
        f"/execution/store/ti/{TI}/a%2F..%2Fb",
        f"/execution/store/ti/{TI}/%2Fa",
        f"/execution/store/ti/{TI}%2Fx/a",
    ],
)
def test_what_two_servers_could_read_differently_is_refused(path):
    with pytest.raises(PathError):
        upstream_target(path.encode(), b"")


@pytest.mark.parametrize("query", [b"a b", b"\x00", b"a=<", b"%z", "é".encode(), b"a#b"])
def test_odd_queries_are_refused(query):
    with pytest.raises(PathError):
        upstream_target(b"/execution/x", query)


@given(st.binary(max_size=60))
def test_no_path_climbs_out(rest):
    try:
        target = upstream_target(b"/execution/" + rest, b"")
    except PathError:
        return
    plain = unquote(target)
    assume("%" not in plain)
    assert plain.startswith("/execution/")
    assert not {"", ".", ".."} & set(plain.removeprefix("/execution/").split("/"))


def test_headers_are_end_to_end_and_authorization_is_replaced():
    sent = forwarded_headers(
        [
            (b"Host", b"gateway"),
            (b"Authorization", b"Bearer lease"),
            (b"Connection", b"close, X-Private"),
            (b"X-Private", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Upgrade", b"websocket"),
            (b"Cookie", b"a"),
            (b"X-Forwarded-For", b"1.2.3.4"),
            (b"Content-Length", b"3"),
            (b"traceparent", b"00-1"),
            (b"X-Twice", b"1"),
            (b"X-Twice", b"2"),
        ],
        "airflow",
    )
    assert sent == [
        ("content-length", "3"),
        ("traceparent", "00-1"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("Authorization", "Bearer airflow"),
    ]


def test_nothing_secret_and_nothing_of_the_connection_comes_back():
    returned = returned_headers(
        [
            (b"Refreshed-API-Token", b"secret"),
            (b"REFRESHED-API-TOKEN", b"secret"),
            (b"Set-Cookie", b"a"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Server", b"uvicorn"),
            (b"Date", b"today"),
            (b"Content-Type", b"application/json"),
            (b"Content-Range", b"map_indexes 3"),
        ]
    )
    assert returned == [(b"content-type", b"application/json"), (b"content-range", b"map_indexes 3")]
