"""
Agents that are pods of a Kubernetes namespace.

Which process of an agent a container was, the container itself leaves in its termination log when it begins
(see ``jetbridge.agent.mark``); Kubernetes shows it once the container has ended. All processes of a container
end with it, so its end is the agent's, with everything that it started. Of a pod that merely vanished nothing
is known (its node may be cut off, its object deleted by force), and nothing is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import structlog

from jetbridge.agent.mark import Mark
from jetbridge.contracts.sites import AgentSeen, CheckSeen
from jetbridge.sentinel.site.kubernetes import Container, KubernetesError, Pod, Pods, Terminated
from jetbridge.sentinel.site.view import MAX_DETAIL, Ended, SiteView, seen

log = structlog.get_logger(__name__)

API = "kubernetes-api"
RETRY_SECONDS = 2.0
_COMPONENT = "app.kubernetes.io/component"
_OWN_COMPONENT = "sentinel"


async def watch_pods(pods: Pods, view: SiteView) -> None:
    """Keep the view as the API server has it, for as long as the agent runs."""
    try:
        while True:
            try:
                await _watch_once(pods, view)
            except (KubernetesError, msgspec.DecodeError) as error:
                view.check(CheckSeen(name=API, ok=False, detail=str(error)[:MAX_DETAIL]))
                await asyncio.sleep(RETRY_SECONDS)
    finally:
        await pods.close()


async def _watch_once(pods: Pods, view: SiteView) -> None:
    there, version = await pods.list()
    view.check(CheckSeen(name=API, ok=True))
    for pod in there:
        take(pod, view)
    for key in view.keys() - {pod.metadata.uid for pod in there}:
        view.forget(key)
    async for change, pod in pods.watch(version):
        take(pod, view)
        if change == "DELETED":
            view.forget(pod.metadata.uid)


def take(pod: Pod, view: SiteView) -> None:
    """Take in what a pod is now, and say which of its containers' processes are gone."""
    if pod.metadata.labels.get(_COMPONENT) == _OWN_COMPONENT:
        return
    for end in ends_of(pod):
        view.ended(end)
    try:
        view.see(pod.metadata.uid, look_at(pod))
    except msgspec.ValidationError:
        log.info("pod.not_an_agent", pod=pod.metadata.name)


def ends_of(pod: Pod) -> Iterator[Ended]:
    """Yield the processes of agents whose container has ended."""
    for container in pod.status.containers:
        for state in (container.last_state, container.state):
            mark = _mark_of(pod, state.terminated) if state.terminated else None
            if mark and state.terminated:
                yield Ended(mark.name, mark.instance, f"its container ended: {_how(state.terminated)}")


def _mark_of(pod: Pod, terminated: Terminated) -> Mark | None:
    """Return the mark that an ended container left. A pod speaks for the agent of its own name only."""
    try:
        mark = msgspec.json.decode(terminated.message.encode(), type=Mark)
    except msgspec.DecodeError:
        return None
    return mark if mark.name == pod.metadata.name else None


def look_at(pod: Pod) -> AgentSeen:
    """Return what is to be said of a pod: its state, and why it is not well."""
    name, role = pod.metadata.name, pod.metadata.labels.get(_COMPONENT, "").partition("-")[0]
    state, why = _state_of(pod)
    return seen(name, role=role, healthy=state in {"running", "stopped"}, state=state, detail=why)


def _state_of(pod: Pod) -> tuple[str, str]:
    status = pod.status
    for container in status.containers:
        if trouble := _trouble_of(container):
            return trouble
    if status.phase == "Running":
        return "running", ""
    if status.phase == "Succeeded":
        return "stopped", "its container ended in order"
    if status.phase == "Pending":
        for condition in status.conditions:
            if condition.type == "PodScheduled" and condition.status == "False":
                return "pending", f"{condition.reason}: {condition.message}"
        return "pending", status.message or status.reason
    return (status.phase or "unknown").lower(), f"{status.reason} {status.message}".strip()


def _trouble_of(container: Container) -> tuple[str, str] | None:
    before = container.last_state.terminated
    last = f"; before that it ended: {_how(before)}" if before else ""
    if waiting := container.state.waiting:
        if waiting.reason in {"", "ContainerCreating", "PodInitializing"} and before is None:
            return None
        return "waiting", f"{waiting.reason}: {waiting.message}".rstrip(": ") + last
    if (ended := container.state.terminated) and ended.exit_code != 0:
        return "ended", _how(ended)
    return None


def _how(terminated: Terminated) -> str:
    return f"{terminated.reason or 'ended'} (exit code {terminated.exit_code})"
