"""JSON schema of everything in this package: for the snapshot test and the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec

from jetbridge.contracts import (
    api,
    assets,
    audit,
    dag_processing,
    failover,
    messages,
    policies,
    records,
    rpc,
    sites,
    triggering,
)
from jetbridge.contracts.envelope import Body, Envelope

MESSAGES: tuple[type[Body], ...] = (
    *messages.ALL_BODIES,
    *rpc.ALL_BODIES,
    *failover.ALL_BODIES,
    *dag_processing.ALL_BODIES,
    *triggering.ALL_BODIES,
    *audit.ALL_BODIES,
    *assets.ALL_BODIES,
)
"""Every message body of every module; a new module of bodies is added here and nowhere else."""

API: tuple[type[msgspec.Struct], ...] = (
    *api.ALL_BODIES,
    *dag_processing.API_BODIES,
    *triggering.API_BODIES,
    *sites.API_BODIES,
)
"""Every body of the Remote Execution API, likewise."""

RECORDS: tuple[type[msgspec.Struct], ...] = (
    *records.ALL_RECORDS,
    *dag_processing.ALL_RECORDS,
    *policies.ALL_RECORDS,
    *sites.ALL_RECORDS,
)
"""Every value in a KV bucket, likewise."""


def schema_of(*types: type) -> dict[str, Any]:
    """Return the schemas of ``types`` and all they refer to, by name."""
    _, components = msgspec.json.schema_components(
        types, schema_hook=_raw_is_any, ref_template="#/components/schemas/{name}"
    )
    return dict(sorted(components.items()))


def _raw_is_any(python_type: type) -> dict[str, Any]:
    if python_type is msgspec.Raw:
        return {}
    raise NotImplementedError


def snapshot() -> dict[str, Any]:
    """Return every contract under its versioned name, as kept in the schema snapshot file."""
    return {
        "envelope": schema_of(Envelope),
        "messages": {_message_name(body): schema_of(body) for body in MESSAGES},
        "records": {f"{_name(record)}.v{_version(record)}": schema_of(record) for record in RECORDS},
        "api": {f"v{api.CONTRACT}": schema_of(*API)},
    }


def _message_name(body: type[Body]) -> str:
    return body.name()


def _name(record: type[msgspec.Struct]) -> str:
    return record.__name__


def _version(record: type[msgspec.Struct]) -> int:
    version: int = record.VERSION  # type: ignore[attr-defined]  # every record has one; see records.py
    return version


if __name__ == "__main__":
    import json
    import sys

    json.dump(snapshot(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
