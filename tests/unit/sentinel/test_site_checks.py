"""Backends that answer, refuse, hang and are not there; and what the site's owner is shown."""

from __future__ import annotations

import asyncio
import json
import os
import socket

import httpx
import pytest

from jetbridge.contracts.sites import CheckSeen
from jetbridge.sentinel.site import status
from jetbridge.sentinel.site.checks import (
    CheckFailedError,
    checks_of,
    keep_checking,
    probe_environment,
    run_check,
)
from jetbridge.sentinel.site.metrics import SiteMetrics
from jetbridge.sentinel.site.pages import Pages
from jetbridge.sentinel.site.view import SiteView, seen
from jetbridge.telemetry.status import serving


async def failing():
    raise CheckFailedError("the store is on fire")


async def hanging():
    await asyncio.Event().wait()


async def broken():
    raise ZeroDivisionError


async def well():
    return


@pytest.mark.parametrize(
    ("check", "detail"),
    [
        (well, ""),
        (failing, "the store is on fire"),
        (hanging, "no answer within 0.05 s"),
        (broken, "the check failed: ZeroDivisionError"),
    ],
)
async def test_a_check_never_raises(check, detail):
    assert await run_check("c", check, 0.05) == CheckSeen(name="c", ok=not detail, detail=detail)


async def test_checks_are_repeated_and_a_change_is_noticed():
    view, answers = SiteView(), [failing, well]

    async def check():
        await (answers.pop(0) if answers else well)()

    changes = asyncio.Queue()
    view.on_change(lambda: changes.put_nowait([one.ok for one in view.checks]))
    task = asyncio.create_task(keep_checking("c", check, view, 0.01, 5))
    assert [await asyncio.wait_for(changes.get(), 30) for _ in range(2)] == [[False], [True]]
    task.cancel()


def test_only_what_is_configured_is_checked(tmp_path):
    env = {"JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": "http://s3", "AIRFLOW__SECRETS__BACKEND": "a.B"}
    assert set(checks_of(env, tmp_path, 1)) == {"xcom-store", "secrets-backend"}
    assert checks_of({}, tmp_path, 1) == {}
    kept = probe_environment({**env, "JETBRIDGE_AGENT_TOKEN_FILE": "t", "AIRFLOW_HOME": "/own"}, tmp_path)
    assert kept == {**env, "AIRFLOW_HOME": "/own"}


@pytest.mark.parametrize(
    ("source", "seconds", "detail"),
    [("", 90, "does not answer: "), ("import time; time.sleep(600)", 3, "no answer within 3 s")],
)
async def test_the_backend_is_asked_in_a_process_that_is_ended_when_it_hangs(
    tmp_path, source, seconds, detail
):
    (tmp_path / "site_backend.py").write_text(source)
    # On PYTHONPATH, because the process that asks does not look into the current directory.
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "AIRFLOW__SECRETS__BACKEND": "site_backend.Missing"}
    check = checks_of(env, tmp_path, 5)["secrets-backend"]
    result = await run_check("secrets-backend", check, seconds)
    assert not result.ok
    assert detail in result.detail


async def test_a_store_that_is_not_there(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("JETBRIDGE_OBJECT_STORE_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("JETBRIDGE_OBJECT_STORE_ACCESS_KEY", "a")
    monkeypatch.setenv("JETBRIDGE_OBJECT_STORE_SECRET_KEY", "planted-secret")
    result = await run_check("xcom-store", checks_of(os.environ, tmp_path, 2)["xcom-store"], 30)
    assert not result.ok
    assert f"http://127.0.0.1:{port} did not answer" in result.detail
    assert "planted-secret" not in result.detail


@pytest.fixture
def view():
    view = SiteView()
    view.see("1", seen("w1", healthy=True, state="running", role="worker"))
    view.see("2", seen("w2", healthy=False, state="waiting", detail="ImagePullBackOff:  no\nsuch image"))
    view.check(CheckSeen(name="xcom-store", ok=False, detail="no answer"))
    return view


def test_the_pages(view):
    with serving(Pages("paris", "s1", view, SiteMetrics()), "127.0.0.1", 0) as port:
        get = lambda path: httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)  # noqa: E731
        found = get("/status").json()
        assert (found["site"], found["well"], [one["agent"] for one in found["agents"]]) == (
            "paris",
            False,
            ["w2", "w1"],
        )
        metrics = get("/metrics").text
        assert 'jetbridge_site_sentinel_seen_agents{state="running"} 1.0' in metrics
        assert "jetbridge_site_sentinel_unhealthy_agents 1.0" in metrics
        assert 'jetbridge_site_sentinel_failing_check_errors{check="xcom-store"} 1.0' in metrics
        assert get("/healthz").status_code == 200
        assert get("/").status_code == 404


def test_a_loop_that_is_stuck_is_not_healthy(view, monkeypatch):
    pages = Pages("paris", "s1", view, SiteMetrics())
    monkeypatch.setattr("jetbridge.sentinel.site.pages.STUCK_SECONDS", 0.0)
    with serving(pages, "127.0.0.1", 0) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 503


def test_the_command_tells_what_is_wrong_first_and_ends_with_1(view, capsys):
    with serving(Pages("paris", "s1", view, SiteMetrics()), "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}"
        assert status.main(["--url", url]) == status.UNWELL
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "site paris, seen by s1: something is wrong"
        assert lines[3].split(maxsplit=3) == ["w2", "-", "waiting", "ImagePullBackOff: no such image"]
        assert lines[-1].split(maxsplit=2) == ["xcom-store", "NO", "no answer"]
        assert status.main(["--url", url, "--json"]) == status.UNWELL
        assert json.loads(capsys.readouterr().out)["site"] == "paris"
        view.forget("2")
        view.check(CheckSeen(name="xcom-store", ok=True))
        assert status.main(["--url", url]) == 0


def test_without_a_sentinel_the_command_says_so_and_ends_with_3(capsys):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert status.main(["--url", f"http://127.0.0.1:{port}"]) == status.UNREACHABLE
    assert "--listen-port" in capsys.readouterr().err
