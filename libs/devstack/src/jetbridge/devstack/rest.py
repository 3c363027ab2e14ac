"""A client of Airflow's public REST API (v2), with every wait bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from jetbridge.devstack.errors import DevStackError

_POLL_SECONDS = 0.25
_REQUEST_SECONDS = 30.0
_PAGE = 100

T = TypeVar("T")
Json = dict[str, Any]


class WaitError(DevStackError):
    """Something awaited through the REST API did not come; the text says what was seen last."""


class AirflowClient:
    """Calls the API server as an administrator (the stack's auth manager gives everybody that role)."""

    def __init__(self, base_url: str) -> None:
        # trust_env: a proxy in the environment must not swallow requests to this machine
        self._http = httpx.Client(base_url=base_url, timeout=_REQUEST_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def log_in(self) -> None:
        """Fetch a token for the calls that follow; it lives a day."""
        answer = self._http.get("/auth/token")
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def get(self, path: str, **parameters: Any) -> Json:
        """GET below ``/api/v2`` and return the JSON object."""
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: Mapping[str, Any]) -> Json:
        """POST a JSON object below ``/api/v2`` and return the one that comes back."""
        return self._call("POST", path, json=dict(body))

    def health(self) -> Json:
        """Return what Airflow's components say of themselves."""
        return self.get("monitor/health")

    def await_dag(self, dag_id: str, *, timeout_seconds: float = 180.0) -> None:
        """Wait until a Dag has been parsed; a Dag file's import errors end the wait at once."""

        def parsed() -> bool:
            errors = self.get("importErrors")["import_errors"]
            if errors:
                msg = f"{errors[0]['filename']} cannot be imported:\n{errors[0]['stack_trace']}"
                raise WaitError(msg)
            return any(dag["dag_id"] == dag_id for dag in self.get("dags", dag_id_pattern=dag_id)["dags"])

        self.wait(parsed, f"Dag {dag_id} to be parsed", timeout_seconds=timeout_seconds)

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a Dag."""
        self._call("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        logical_date: str | None = None,
    ) -> str:
        """Start a run and return its id. ``logical_date`` is in ISO 8601."""
        body = {"logical_date": logical_date, "conf": dict(conf or {}), "dag_run_id": run_id}
        run: str = self._call("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
        return run

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        state: str = self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"]
        return state

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """Return the latest try of every task instance of a run."""
        return self._pages(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")

    def tries(self, instance: Json) -> list[Json]:
        """Return every try of one task instance, first to last."""
        path = "dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}".format(**instance)
        tries: list[Json] = self.get(f"{path}/{instance['map_index']}/tries")["task_instances"]
        return sorted(tries, key=lambda one: int(one["try_number"]))

    def wait(
        self,
        condition: Callable[[], T],
        what: str,
        *,
        timeout_seconds: float,
        every_seconds: float = _POLL_SECONDS,
        check: Callable[[], None] = lambda: None,
    ) -> T:
        """
        Ask until ``condition`` is true and return what it returned.

        ``check`` is called before each question and may raise to end the wait. A question that gets no answer
        in time is asked again: the server is busy, and how long to wait was said here. Raises
        :class:`WaitError` after ``timeout_seconds``.
        """
        deadline, unanswered = time.monotonic() + timeout_seconds, 0
        while True:
            check()
            try:
                if result := condition():
                    return result
            except httpx.TimeoutException:
                unanswered += 1
            if time.monotonic() > deadline:
                silence = f"; {unanswered} questions got no answer in time" if unanswered else ""
                msg = f"waited {timeout_seconds:.0f} s for {what}{silence}"
                raise WaitError(msg)
            time.sleep(every_seconds)

    def _pages(self, path: str, key: str) -> list[Json]:
        found: list[Json] = []
        while True:
            page = self.get(path, limit=_PAGE, offset=len(found))
            found.extend(page[key])
            if len(found) >= page["total_entries"] or not page[key]:
                return found

    def _call(self, method: str, path: str, **options: Any) -> Json:
        answer = self._http.request(method, f"/api/v2/{path}", **options)
        if answer.is_error:
            msg = f"{method} {path} answered {answer.status_code}: {answer.text[:500]}"
            raise DevStackError(msg)
        body: Json = answer.json()
        return body
