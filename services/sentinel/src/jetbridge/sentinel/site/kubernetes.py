"""
Pods of one namespace from the Kubernetes API: one list, one watch, nothing else.

The token is read for each request, because Kubernetes replaces it every hour. Only the fields that are used
are decoded; they are part of the stable v1 API.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_SECONDS = 60
"""How long the API server is asked to keep a watch; then all pods are listed again, so nothing is missed."""

CONNECT_SECONDS = 10.0


class KubernetesError(Exception):
    """The API server does not answer, or refuses; the text says how and what to do."""


class Metadata(msgspec.Struct, frozen=True):
    """Of a pod: ``uid`` tells it from a later one of the same name."""

    name: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    resource_version: str = msgspec.field(default="", name="resourceVersion")


class Waiting(msgspec.Struct, frozen=True):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class Terminated(msgspec.Struct, frozen=True):
    """How a container ended. ``message`` is what it left in its termination log."""

    reason: str = ""
    message: str = ""
    exit_code: int = msgspec.field(default=0, name="exitCode")


class State(msgspec.Struct, frozen=True):
    """One of these is set, or none for a container that runs."""

    waiting: Waiting | None = None
    terminated: Terminated | None = None


class Container(msgspec.Struct, frozen=True):
    """A container's status."""

    name: str = ""
    ready: bool = False
    restarts: int = msgspec.field(default=0, name="restartCount")
    state: State = State()
    last_state: State = msgspec.field(default=State(), name="lastState")


class Condition(msgspec.Struct, frozen=True):
    """A condition of a pod."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class PodStatus(msgspec.Struct, frozen=True):
    """A pod's status."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    containers: list[Container] = msgspec.field(default_factory=list, name="containerStatuses")


class Pod(msgspec.Struct, frozen=True):
    """As much of a pod as is looked at."""

    metadata: Metadata = Metadata()
    status: PodStatus = PodStatus()


class _PodList(msgspec.Struct, frozen=True):
    metadata: Metadata = Metadata()
    items: list[Pod] = []


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class Pods:
    """
    The pods of a namespace that have some labels.

    :param transport: something else than the network, for tests
    """

    def __init__(
        self,
        namespace: str,
        selector: str,
        *,
        server: str = "",
        account: Path = ACCOUNT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._account = account
        own = account / "namespace"
        self._namespace = namespace or (own.read_text().strip() if own.exists() else "default")
        self._selector = selector
        self._server = server or in_cluster_server()
        authority = account / "ca.crt"
        verify = ssl.create_default_context(cafile=authority) if authority.exists() else True
        self._http = httpx.AsyncClient(verify=verify, transport=transport, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def list(self) -> tuple[list[Pod], str]:
        """Return the pods, and the version from which to watch on; raises :class:`KubernetesError`."""
        async with self._get({}, CONNECT_SECONDS) as lines:
            found = msgspec.json.decode(b"".join([part async for part in lines]), type=_PodList)
        return found.items, found.metadata.resource_version

    async def watch(self, version: str) -> AsyncIterator[tuple[str, Pod]]:
        """Yield ``(ADDED | MODIFIED | DELETED, pod)`` until the server ends it, or says it has to be anew."""
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        async with self._get(query, WATCH_SECONDS + CONNECT_SECONDS) as parts:
            rest = b""
            async for part in parts:
                *lines, rest = (rest + part).split(b"\n")
                for line in filter(None, lines):
                    event = msgspec.json.decode(line, type=_Event)
                    if event.type == "ERROR":  # 410 Gone: the version is too old by now
                        return
                    if event.type != "BOOKMARK":
                        yield event.type, msgspec.json.decode(event.object, type=Pod)

    def _get(self, query: dict[str, str], read_seconds: float) -> _Answer:
        request = self._http.build_request(
            "GET",
            f"{self._server}/api/v1/namespaces/{self._namespace}/pods",
            params={"labelSelector": self._selector, **query},
            headers={"authorization": f"Bearer {self._token()}", "accept": "application/json"},
            timeout=httpx.Timeout(CONNECT_SECONDS, read=read_seconds),
        )
        return _Answer(self._http, request)

    def _token(self) -> str:
        try:
            return (self._account / "token").read_text().strip()
        except OSError as error:
            raise KubernetesError(
                f"no service account token at {self._account}: {error.strerror}; is this a pod, and is its "
                "token mounted?"
            ) from error


class _Answer:
    """A streamed answer; errors of httpx and refusals become :class:`KubernetesError`."""

    def __init__(self, client: httpx.AsyncClient, request: httpx.Request) -> None:
        self._client = client
        self._request = request

    async def __aenter__(self) -> AsyncIterator[bytes]:
        try:
            self._response = await self._client.send(self._request, stream=True)
            if self._response.status_code != httpx.codes.OK:
                status = self._response.status_code
                await self._response.aclose()
                raise KubernetesError(
                    f"the Kubernetes API answered {status}; the sentinel needs get, list and watch of pods"
                )
        except httpx.HTTPError as error:
            raise KubernetesError(f"the Kubernetes API did not answer: {type(error).__name__}") from error
        return self._parts()

    async def _parts(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._response.aiter_bytes():
                yield part
        except httpx.HTTPError as error:
            raise KubernetesError(f"the Kubernetes API hung up: {type(error).__name__}") from error

    async def __aexit__(self, *_exc: object) -> None:
        await self._response.aclose()


def in_cluster_server() -> str:
    """Return the address of the API server as every pod is told it."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
