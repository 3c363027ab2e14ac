"""What is said of pods, from what the Kubernetes API says: why one is not well, and which process is gone."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from jetbridge.agent.waiting import running
from jetbridge.sentinel.site.kubernetes import KubernetesError, Pod, Pods
from jetbridge.sentinel.site.pods import take, watch_pods
from jetbridge.sentinel.site.view import SiteView

NAME = "jetbridge-agents-worker-default-7c9f8b6d5-x2x4z"
INSTANCE = "0123456789abcdef0123456789abcdef"
MARK = json.dumps({"name": NAME, "instance": INSTANCE, "role": "worker", "pid": 7})


def pod(*containers, phase="Running", conditions=(), **changes):
    return {
        "metadata": {
            "name": NAME,
            "uid": "u1",
            "labels": {"app.kubernetes.io/component": "worker-default"},
            **changes,
        },
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": list(containers)},
    }


def container(state, last=None, restarts=0):
    return {
        "name": "worker",
        "ready": "running" in state,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


def ended(reason, code, message=""):
    return {"terminated": {"reason": reason, "exitCode": code, "message": message, "containerID": "c"}}


RUNS = {"running": {"startedAt": "2026-11-27T12:00:00Z"}}


def taken(*pods):
    import msgspec

    view = SiteView()
    for one in pods:
        take(msgspec.convert(one, Pod), view)
    return view


@pytest.mark.parametrize(
    ("status", "healthy", "state", "detail"),
    [
        (pod(container(RUNS)), True, "running", ""),
        (pod(container(waiting("ContainerCreating")), phase="Pending"), False, "pending", ""),
        (
            pod(
                phase="Pending",
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available: 3 Insufficient memory.",
                    }
                ],
            ),
            False,
            "pending",
            "Unschedulable: 0/3 nodes are available: 3 Insufficient memory.",
        ),
        (
            pod(container(waiting("ImagePullBackOff", 'Back-off pulling image "x"')), phase="Pending"),
            False,
            "waiting",
            'ImagePullBackOff: Back-off pulling image "x"',
        ),
        (
            pod(container(waiting("CrashLoopBackOff"), ended("OOMKilled", 137))),
            False,
            "waiting",
            "CrashLoopBackOff; before that it ended: OOMKilled (exit code 137)",
        ),
        (pod(container(ended("Error", 2)), phase="Failed"), False, "ended", "Error (exit code 2)"),
        (
            pod(container(ended("Completed", 0)), phase="Succeeded"),
            True,
            "stopped",
            "its container ended in order",
        ),
    ],
)
def test_why_a_pod_is_not_well(status, healthy, state, detail):
    (seen,) = taken(status).agents
    assert (seen.agent, seen.role, seen.healthy, seen.state, seen.detail) == (
        NAME,
        "worker",
        healthy,
        state,
        detail,
    )


@pytest.mark.parametrize(
    "status",
    [
        pod(container(ended("OOMKilled", 137, MARK))),
        pod(container(RUNS, ended("OOMKilled", 137, MARK), restarts=1)),
        pod(container(waiting("CrashLoopBackOff"), ended("OOMKilled", 137, MARK))),
    ],
)
def test_the_process_of_a_container_that_ended_is_gone_and_told_once(status):
    view = taken(status, status)
    end = view.ends.get_nowait()
    assert (end.agent, end.instance) == (NAME, INSTANCE)
    assert end.reason == "its container ended: OOMKilled (exit code 137)"
    assert view.ends.empty()


@pytest.mark.parametrize(
    "message",
    ["", "panic: something", "{}", "[1]", MARK.replace(NAME, "another-agent"), MARK[:-5], '{"name": 3}'],
)
def test_no_word_about_anybody_who_is_not_known_for_certain(message):
    assert taken(pod(container(ended("Error", 1, message)))).ends.empty()


def test_a_pod_that_merely_vanished_is_no_death_and_its_sentinel_not_watched():
    assert taken(pod(container(RUNS))).ends.empty()
    assert not taken(pod(container(RUNS), labels={"app.kubernetes.io/component": "sentinel"})).agents


class Cluster:
    """An API server of one list and the watches after it."""

    def __init__(self, pods=(), status=200):
        self.pods, self.status, self.requests = list(pods), status, []
        self.events = asyncio.Queue()

    def transport(self):
        return httpx.MockTransport(self.answer)

    async def answer(self, request):
        self.requests.append(request)
        if self.status != 200:
            return httpx.Response(self.status, json={"kind": "Status"})
        if "watch" not in request.url.params:
            return httpx.Response(
                200,
                json={
                    "metadata": {"resourceVersion": "17"},
                    "items": [one for one in self.pods if one],
                },
            )
        return httpx.Response(200, stream=Stream(self.events))


class Stream(httpx.AsyncByteStream):
    def __init__(self, events):
        self.events = events

    async def __aiter__(self):
        while (event := await self.events.get()) is not None:
            line = json.dumps(event).encode() + b"\n"
            for half in (line[:20], line[20:]):  # lines come in pieces
                yield half


@pytest.fixture
def account(tmp_path):
    (tmp_path / "token").write_text("t1\n")
    (tmp_path / "namespace").write_text("plane-of-tests")
    return tmp_path


def pods_of(cluster, account):
    return Pods("", "a=b", server="https://k8s", account=account, transport=cluster.transport())


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_list_and_then_every_change(account):
    cluster, view = Cluster([pod(container(RUNS))]), SiteView()
    async with running(watch_pods(pods_of(cluster, account), view)):
        await until(lambda: [one.state for one in view.agents] == ["running"])
        await cluster.events.put({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "18"}}})
        await cluster.events.put(
            {"type": "MODIFIED", "object": pod(container(ended("OOMKilled", 137, MARK)))}
        )
        assert (await asyncio.wait_for(view.ends.get(), 30)).instance == INSTANCE
        await cluster.events.put({"type": "DELETED", "object": pod(container(ended("OOMKilled", 137, MARK)))})
        await until(lambda: not view.agents)
    listed, watched = cluster.requests[:2]
    assert listed.url.path == "/api/v1/namespaces/plane-of-tests/pods"
    assert listed.headers["authorization"] == "Bearer t1"
    assert (watched.url.params["resourceVersion"], watched.url.params["labelSelector"]) == ("17", "a=b")


async def test_after_a_watch_ends_everything_is_listed_again_with_the_token_of_now(account):
    cluster, view = Cluster([pod(container(RUNS))]), SiteView()
    async with running(watch_pods(pods_of(cluster, account), view)):
        await until(lambda: len(cluster.requests) == 2)
        (account / "token").write_text("t2")
        cluster.pods = []  # deleted while nobody watched
        await cluster.events.put({"type": "ERROR", "object": {"code": 410}})
        await until(lambda: not view.agents)
    assert cluster.requests[2].headers["authorization"] == "Bearer t2"


async def test_an_api_that_refuses_is_a_failing_check_that_says_what_is_missing(account):
    cluster, view = Cluster(status=403), SiteView()
    async with running(watch_pods(pods_of(cluster, account), view)):
        await until(lambda: view.checks)
        (check,) = view.checks
        assert (check.name, check.ok) == ("kubernetes-api", False)
        assert "403" in check.detail
        assert "get, list and watch" in check.detail
        assert not view.is_well


async def test_no_token_is_a_sentence(tmp_path):
    pods = pods_of(Cluster(), tmp_path)
    with pytest.raises(KubernetesError, match="is this a pod"):
        await pods.list()
    await pods.close()
