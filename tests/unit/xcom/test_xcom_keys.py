"""Names of objects: readable, safe, short enough, never the same twice."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from jetbridge.xcom.keys import segment, xcom_object_key

_any_id = st.text(min_size=1, max_size=250)
_longest_prefix = "p" * 255 + "/"


def test_an_ordinary_key_can_be_read() -> None:
    key = xcom_object_key(
        prefix="site-a/",
        dag_id="orders",
        run_id="scheduled__2026-01-01T00:00:00+00:00",
        task_id="regions.load",
        map_index=3,
        key="return_value",
        suffix=".json",
    )
    assert re.fullmatch(
        r"site-a/orders/scheduled__2026-01-01T00%3A00%3A00%2B00%3A00/regions\.load/3/return_value\.[0-9a-f]{32}\.json",
        key,
    )


@given(dag_id=_any_id, run_id=_any_id, task_id=_any_id, key=st.text(min_size=1, max_size=512))
@example(dag_id="..", run_id=".", task_id="../../etc", key="/" * 512)
@example(dag_id="日" * 250, run_id="é" * 250, task_id="😀" * 250, key="ü" * 512)
@example(dag_id="\ud800", run_id="\x00", task_id="a\nb", key="?#%")
def test_every_key_is_safe_for_any_server(dag_id: str, run_id: str, task_id: str, key: str) -> None:
    name = xcom_object_key(
        prefix=_longest_prefix,
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=10**9,
        key=key,
        suffix=".json.gz",
    )
    folders = name.removeprefix(_longest_prefix).split("/")
    assert len(name) <= 1024
    assert len(folders) == 5
    assert all(0 < len(folder) <= 255 and folder.strip(".") for folder in folders)
    assert re.fullmatch(r"(?:[A-Za-z0-9_.~/-]|%[0-9A-F]{2})+", name)


@given(first=_any_id, second=_any_id)
@example(first="a" * 250, second="a" * 249 + "b")
@example(first=".", second="..")
@example(first="a/b", second="a%2Fb")
def test_different_ids_have_different_parts(first: str, second: str) -> None:
    assert (segment(first) == segment(second)) == (first == second)


def test_two_writes_of_the_same_xcom_never_share_an_object() -> None:
    def new() -> str:
        return xcom_object_key(
            prefix="", dag_id="d", run_id="r", task_id="t", map_index=None, key="k", suffix=".json"
        )

    assert len({new() for _ in range(100)}) == 100
    assert new().startswith("d/r/t/-1/k.")


def test_missing_coordinates_do_not_break_a_write() -> None:
    name = xcom_object_key(
        prefix="", dag_id=None, run_id=None, task_id=None, map_index=None, key=None, suffix=".json"
    )
    assert name.startswith("unknown/unknown/unknown/-1/unknown.")
