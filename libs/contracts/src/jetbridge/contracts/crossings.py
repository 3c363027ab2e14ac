"""
Where data crosses: every operation that agents may call, field by field.

Operations below ``/execution/`` are those of Airflow 3.3's Execution API; ``test_boundary_table`` fails when
one of them, or a field of a body, is missing here.
"""

from __future__ import annotations

from jetbridge.contracts.boundary import Crossing, DataClass, To

_TI = "/execution/task-instances/{task_instance_id}"
_XCOM = "/execution/xcoms/{dag_id}/{run_id}/{task_id}/{key}"


def _to_plane(operation: str, data: DataClass, *fields: str) -> list[Crossing]:
    return [Crossing(operation=operation, field=field, data=data) for field in fields]


def _to_agent(operation: str, data: DataClass, *fields: str) -> list[Crossing]:
    return [Crossing(operation=operation, field=field, data=data, to=To.AGENT) for field in fields]


EXECUTION: tuple[Crossing, ...] = (
    *_to_plane(f"PATCH {_TI}/run", DataClass.STATES, "state", "hostname", "unixname", "pid", "start_date"),
    *_to_agent(f"PATCH {_TI}/run", DataClass.TRIGGER_DATA, "next_kwargs"),
    *_to_agent(f"PATCH {_TI}/run", DataClass.CONNECTIONS, "connections"),
    *_to_agent(f"PATCH {_TI}/run", DataClass.VARIABLES, "variables"),
    *_to_plane(
        f"PATCH {_TI}/state",
        DataClass.STATES,
        "state",
        "end_date",
        "reschedule_date",
        "retry_delay_seconds",
        "trigger_timeout",
        "timeout",
        "queue",
    ),
    *_to_plane(f"PATCH {_TI}/state", DataClass.STRUCTURE, "classpath", "next_method", "task_outlets"),
    *_to_plane(f"PATCH {_TI}/state", DataClass.RENDERED_FIELDS, "rendered_map_index"),
    *_to_plane(f"PATCH {_TI}/state", DataClass.EXCEPTION_TEXT, "retry_reason"),
    *_to_plane(f"PATCH {_TI}/state", DataClass.ASSET_EVENT_EXTRA, "outlet_events"),
    *_to_plane(f"PATCH {_TI}/state", DataClass.TRIGGER_DATA, "trigger_kwargs", "next_kwargs"),
    *_to_plane(f"PATCH {_TI}/skip-downstream", DataClass.STATES, "tasks"),
    *_to_plane(f"PUT {_TI}/heartbeat", DataClass.STATES, "hostname", "pid"),
    *_to_plane(f"PUT {_TI}/rtif", DataClass.RENDERED_FIELDS, ""),
    *_to_plane(f"PATCH {_TI}/rendered-map-index", DataClass.RENDERED_FIELDS, ""),
    *_to_agent(f"GET {_TI}/previous-successful-dagrun", DataClass.STATES, ""),
    *_to_agent(f"GET {_TI}/validate-inlets-and-outlets", DataClass.STRUCTURE, ""),
    *_to_agent("GET /execution/task-instances/count", DataClass.STATES, ""),
    *_to_agent("GET /execution/task-instances/previous/{dag_id}/{task_id}", DataClass.STATES, ""),
    *_to_agent("GET /execution/task-instances/states", DataClass.STATES, ""),
    *_to_agent("GET /execution/task-instances/breadcrumbs", DataClass.STATES, ""),
    *_to_agent("GET /execution/task-reschedules/{task_instance_id}/start_date", DataClass.STATES, ""),
    *_to_plane(f"POST {_XCOM}", DataClass.XCOM_VALUES, ""),
    *_to_plane(f"POST {_XCOM}", DataClass.OPERATOR_LINKS, "_link_*"),
    *_to_agent(f"GET {_XCOM}", DataClass.REFERENCES, ""),
    *_to_agent(f"HEAD {_XCOM}", DataClass.STATES, ""),
    *_to_agent(f"GET {_XCOM}/item/{{offset}}", DataClass.REFERENCES, ""),
    *_to_agent(f"GET {_XCOM}/slice", DataClass.REFERENCES, ""),
    *_to_plane(f"DELETE {_XCOM}", DataClass.REFERENCES, ""),
    *_to_agent("GET /execution/connections/{connection_id}", DataClass.CONNECTIONS, ""),
    *_to_agent("GET /execution/variables/{variable_key}", DataClass.VARIABLES, ""),
    *_to_agent("GET /execution/variables/keys", DataClass.VARIABLES, ""),
    *_to_plane("PUT /execution/variables/{variable_key}", DataClass.VARIABLES, "val", "value", "description"),
    *_to_plane("DELETE /execution/variables/{variable_key}", DataClass.VARIABLES, ""),
    *_to_agent("GET /execution/store/ti/{task_instance_id}/{key}", DataClass.REFERENCES, ""),
    *_to_plane("PUT /execution/store/ti/{task_instance_id}/{key}", DataClass.STATE_STORE_VALUES, "value"),
    *_to_plane("PUT /execution/store/ti/{task_instance_id}/{key}", DataClass.STATES, "expires_at"),
    *_to_plane("DELETE /execution/store/ti/{task_instance_id}/{key}", DataClass.REFERENCES, ""),
    *_to_plane("DELETE /execution/store/ti/{task_instance_id}", DataClass.REFERENCES, ""),
    *(
        one
        for by in ("by-name", "by-uri")
        for one in (
            *_to_agent(f"GET /execution/store/asset/{by}/value", DataClass.REFERENCES, ""),
            *_to_plane(f"PUT /execution/store/asset/{by}/value", DataClass.STATE_STORE_VALUES, "value"),
            *_to_plane(f"DELETE /execution/store/asset/{by}/value", DataClass.REFERENCES, ""),
            *_to_plane(f"DELETE /execution/store/asset/{by}/clear", DataClass.REFERENCES, ""),
        )
    ),
    *_to_agent("GET /execution/assets/by-name", DataClass.STRUCTURE, ""),
    *_to_agent("GET /execution/assets/by-uri", DataClass.STRUCTURE, ""),
    *_to_agent("GET /execution/assets/by-alias", DataClass.STRUCTURE, ""),
    *_to_agent("GET /execution/asset-events/by-asset", DataClass.ASSET_EVENTS, ""),
    *_to_agent("GET /execution/asset-events/by-asset-alias", DataClass.ASSET_EVENTS, ""),
    *_to_plane(
        "POST /execution/dag-runs/{dag_id}/{run_id}",
        DataClass.STATES,
        "logical_date",
        "run_after",
        "reset_dag_run",
        "partition_key",
    ),
    *_to_plane("POST /execution/dag-runs/{dag_id}/{run_id}", DataClass.RUN_CONF, "conf", "note"),
    *_to_plane("POST /execution/dag-runs/{dag_id}/{run_id}/clear", DataClass.STATES, ""),
    *_to_agent("GET /execution/dag-runs/{dag_id}/{run_id}", DataClass.STATES, ""),
    *_to_agent("GET /execution/dag-runs/{dag_id}/{run_id}/state", DataClass.STATES, ""),
    *_to_agent("GET /execution/dag-runs/{dag_id}/previous", DataClass.STATES, ""),
    *_to_agent("GET /execution/dag-runs/count", DataClass.STATES, ""),
    *_to_agent("GET /execution/dag-runs/previous", DataClass.STATES, ""),
    *_to_agent("GET /execution/dags/{dag_id}", DataClass.STATES, ""),
    *_to_plane("POST /execution/hitlDetails/{task_instance_id}", DataClass.HUMAN_INPUT, ""),
    *_to_plane("PATCH /execution/hitlDetails/{task_instance_id}", DataClass.HUMAN_INPUT, ""),
    *_to_agent("GET /execution/hitlDetails/{task_instance_id}", DataClass.HUMAN_INPUT, ""),
    *_to_agent(
        "GET /execution/connection-tests/{connection_test_id}/connection", DataClass.CONNECTION_TESTS, ""
    ),
    *_to_plane("PATCH /execution/connection-tests/{connection_test_id}", DataClass.CONNECTION_TESTS, ""),
    *_to_agent("GET /execution/health", DataClass.STATES, ""),
    *_to_agent("GET /execution/health/ping", DataClass.STATES, ""),
)

_BUNDLES = "POST /v1/agents/{name}/bundles"

OURS: tuple[Crossing, ...] = (
    *_to_plane("POST /v1/agents", DataClass.STATES, "*"),
    *_to_plane("POST /v1/agents/{name}/heartbeat", DataClass.STATES, "*"),
    *_to_plane("POST /v1/agents/{name}/poll", DataClass.STATES, "*"),
    *_to_plane("POST /v1/leases/{lease}/accept", DataClass.STATES, "*"),
    *_to_plane("POST /v1/leases/{lease}/report", DataClass.STATES, "*"),
    *_to_plane("POST /v1/leases/{lease}/report", DataClass.AGENT_NOTES, "reason"),
    *_to_plane("POST /v1/agents/{name}/triggerer", DataClass.STATES, "*"),
    *_to_plane("POST /v1/agents/{name}/triggerer/end", DataClass.STATES, "*"),
    *_to_plane("POST /v1/agents/{name}/triggers/poll", DataClass.STATES, "*"),
    *_to_agent("POST /v1/agents/{name}/triggers/poll", DataClass.TRIGGER_DATA, "start.arguments"),
    *_to_plane("POST /v1/agents/{name}/triggers/events", DataClass.STATES, "*"),
    *_to_plane("POST /v1/agents/{name}/triggers/events", DataClass.TRIGGER_DATA, "events.event"),
    *_to_plane("POST /v1/agents/{name}/triggers/events", DataClass.ASSET_EVENTS, "events.event"),
    *_to_plane("POST /v1/agents/{name}/triggers/events", DataClass.EXCEPTION_TEXT, "events.traceback"),
    *_to_plane(f"{_BUNDLES}/claim", DataClass.STATES, "*"),
    *_to_plane(f"{_BUNDLES}/declare", DataClass.STRUCTURE, "*"),
    *_to_plane(f"{_BUNDLES}/state", DataClass.STATES, "*"),
    *_to_plane(f"{_BUNDLES}/refreshed", DataClass.STATES, "*"),
    *_to_plane(f"{_BUNDLES}/files", DataClass.STRUCTURE, "*"),
    *_to_plane(f"{_BUNDLES}/stale", DataClass.STATES, "*"),
    *_to_plane(f"{_BUNDLES}/requests", DataClass.STATES, "*"),
    *_to_plane(f"{_BUNDLES}/parsed", DataClass.STRUCTURE, "*"),
    *_to_plane(f"{_BUNDLES}/parsed", DataClass.RUN_PARAMETERS, "result.dags.data"),
    *_to_plane(f"{_BUNDLES}/parsed", DataClass.TASK_ARGUMENTS, "result.dags.data"),
    *_to_plane(f"{_BUNDLES}/parsed", DataClass.DAG_DOCS, "result.dags.data"),
    *_to_plane(f"{_BUNDLES}/parsed", DataClass.EXCEPTION_TEXT, "result.import_errors"),
    *_to_plane(f"{_BUNDLES}/parsed", DataClass.DAG_SOURCE, "result.source"),
    *_to_agent("GET /v1/agents/{name}/airflow/{path}", DataClass.REFERENCES, ""),
)

CROSSINGS: tuple[Crossing, ...] = (*EXECUTION, *OURS)
"""All of them."""
