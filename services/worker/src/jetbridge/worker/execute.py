"""
Running one Airflow workload. All this package knows of Airflow's Python interfaces is in this module.

Written for Airflow 3.3 (``apache-airflow-core>=3.3,<3.4``). It relies on:

* ``airflow.executors.workloads.ExecutorWorkload``: the union of workload models, read from JSON;
* ``BaseExecutor.run_workload``: what Airflow's own executors call in a worker process, and which picks
  ``supervise_task`` or ``supervise_callback``; the former is called here, with a client of ours;
* ``[sdk] coordinators`` and ``queue_to_coordinator`` being read from the environment when a supervisor
  starts, and again after ``reset_coordinator_manager`` (see ``coordinator``);
* ``ti.context_carrier``: what Airflow's task runner takes for the parent of its span;
* ``airflow.sdk.api.client.Client`` caching its TLS context, and the modules in ``PRELOADED_MODULES``:
  both only save time.

``tests/unit/worker/test_airflow_contract.py`` fails when one of these changes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import structlog
from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from airflow.sdk.api.client import Client
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.coordinator import reset_coordinator_manager
from airflow.sdk.execution_time.supervisor import supervise_task
from airflow.sdk.log import configure_logging
from pydantic import TypeAdapter, ValidationError
from setproctitle import setproctitle

from jetbridge.contracts.messages import Outcome
from jetbridge.worker import log_ids, memory, residue, site_client, startup, traced
from jetbridge.worker.frames import MAX_REASON_LENGTH, Order, Result
from jetbridge.worker.kept_client import kept
from jetbridge.worker.outbox import Outbox
from jetbridge.worker.riding import RidingClient
from jetbridge.xcom.backend import xcom_store
from jetbridge.xcom.errors import ObjectStoreError
from jetbridge.xcom.logs import logs_store

PRELOADED_MODULES: tuple[str, ...] = (
    "jetbridge.worker.coordinator",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.callback_supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.definitions.decorators",
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.providers.standard.decorators.bash",
    "airflow.providers.standard.decorators.python",
    "airflow.triggers.base",
    "encodings.idna",
    "jinja2.ext",
    "setproctitle",
)
"""What supervisors and task processes were seen to import; forks find it in memory already."""

LEASE_VARIABLE = "JETBRIDGE_LEASE"
"""
Tells a task under which lease it runs, ``<TI id>.<epoch>``: one attempt, never given to another. A fencing
token for whatever the task writes to.
"""

KILLED = "its process was killed by SIGKILL, most likely by the kernel because memory ran out"
"""Said of a task that nobody here has killed."""

_workload: TypeAdapter[Any] = TypeAdapter(workloads.ExecutorWorkload)
log = structlog.get_logger(__name__)


def warm_up(server: str, extra_modules: tuple[str, ...] = ()) -> None:
    """
    Import and build what every workload needs, so that its processes inherit it.

    ``extra_modules`` are a site's own, for example pandas; one that cannot be imported is only logged,
    because a task that needs it will say so where its author looks.
    """
    configure_logging(json_output=True, output=sys.stderr.buffer)
    for name in (*PRELOADED_MODULES, *extra_modules):
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything while it is imported
            log.warning("module cannot be preloaded", module=name, error=describe(error))
    traced.preload()
    _open_stores()
    # Reading the CA bundle takes longer than all else a supervisor does; Airflow caches it per process.
    Client(base_url=server, token="").close()


def _open_stores() -> None:
    """Read the settings of the object stores, which forks then have; where there are none, tasks say so."""
    for open_store in (logs_store, xcom_store):
        with contextlib.suppress(ObjectStoreError):
            open_store()


def run(order: Order, server: str) -> Result:
    """
    Run a workload to its end in a child of this process and say how the *process* ended.

    The task's own state is told to Airflow by Airflow's supervisor. ``server`` is the address of the
    Execution API. Never raises; blocks for as long as the workload runs.
    """
    residue.left.forget()
    memory.watch = memory.MemoryWatch(order.memory_limit_bytes)
    try:
        log_ids.bind(order)
        workload = _read_workload(order)
        site = site_client.use(site_client.Site(order.opened))
        os.environ[LEASE_VARIABLE] = order.lease
        _use_prompt_coordinator(workload)
        startup.clock.begin(order.accepted_at)
        with traced.supervised(order.traceparent):
            exit_code = _supervise(workload, order, server)
    except Exception as error:
        log.exception("workload failed", lease=order.lease)
        return Result(outcome=Outcome.FAILED, reason=describe(error))
    if memory.watch.killed_because:
        return Result(outcome=Outcome.FAILED, exit_code=exit_code, reason=memory.watch.killed_because)
    if exit_code:
        reason = KILLED if exit_code == -signal.SIGKILL else ""
        return Result(outcome=Outcome.SUCCEEDED, exit_code=exit_code, reason=reason)
    again = not (order.outbox or traced.is_on() or site.has_keys) and residue.left.is_harmless
    return Result(outcome=Outcome.SUCCEEDED, exit_code=exit_code, again=again)


def _supervise(workload: Any, order: Order, server: str) -> int:
    title = _process_title(workload)
    if not isinstance(workload, workloads.ExecuteTask):
        return BaseExecutor.run_workload(workload, server=server, proctitle=title)
    setproctitle(title)
    if not order.outbox:
        return _supervise_task(workload, server, kept.for_task(server, order.token))
    outbox = Outbox(Path(order.outbox))
    with closing(RidingClient(base_url=server, token=order.token, outbox=outbox)) as client:
        return _supervise_task(workload, server, client)


def _supervise_task(workload: Any, server: str, client: Client) -> int:
    """Run a task as ``BaseExecutor.run_workload`` does, but with our client; returns its exit code."""
    return supervise_task(
        ti=workload.ti,
        bundle_info=workload.bundle_info,
        dag_rel_path=workload.dag_rel_path,
        token=workload.token,
        server=server,
        log_path=workload.log_path,
        client=client,
        sentry_integration=getattr(workload, "sentry_integration", ""),
    )


def _read_workload(order: Order) -> Any:
    fields = msgspec.json.decode(order.spec, type=dict[str, Any])
    fields["token"] = order.token
    if "ti" in fields:
        traced.continue_in(fields["ti"], order.traceparent)
    return _workload.validate_python(fields)


def _use_prompt_coordinator(workload: Any) -> None:
    """
    Have Airflow run this supervisor's task through our coordinator, unless its queue has one.

    Set here and not in ``airflow_env``: what the site's own configuration says is known only now.
    """
    if not isinstance(workload, workloads.ExecuteTask):
        return
    coordinators = conf.getjson("sdk", "coordinators", fallback={})
    by_queue = conf.getjson("sdk", "queue_to_coordinator", fallback={})
    if workload.ti.queue not in by_queue:
        coordinators["jetbridge"] = {"classpath": "jetbridge.worker.coordinator.PromptPythonCoordinator"}
        by_queue[workload.ti.queue] = "jetbridge"
        os.environ["AIRFLOW__SDK__COORDINATORS"] = json.dumps(coordinators)
        os.environ["AIRFLOW__SDK__QUEUE_TO_COORDINATOR"] = json.dumps(by_queue)
        reset_coordinator_manager()  # it has read both, if this supervisor served another queue before


def _process_title(workload: Any) -> str:
    return f"jetbridge worker: supervisor of {workload.display_name}"


def describe(error: Exception) -> str:
    """
    Return one line for the plane and its operators: the error's type, and its text where that is safe.

    The text of an arbitrary exception may quote a password or a row of data, and reports cross to the
    plane; so only errors whose text is known to hold nothing of the kind are quoted.
    """
    kind = type(error).__name__
    if isinstance(error, ValidationError):
        where = ", ".join(".".join(map(str, item["loc"])) for item in error.errors(include_input=False))
        text = f"this worker's Airflow cannot read the workload; look at: {where}"
    elif isinstance(error, httpx.HTTPStatusError):
        text = f"{error.request.method} {error.request.url.path} answered {error.response.status_code}"
    elif isinstance(error, httpx.RequestError):
        text = "the gateway did not answer"
    else:
        text = "the worker's log has the details"
    return f"{kind}: {text}"[:MAX_REASON_LENGTH]
