"""Custom resources against the schemas of their definitions, as strictly as Kubernetes' own objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).parents[2] / "schemas"
GROUPS = {"keda.sh/v1alpha1": "keda.json"}


def is_custom(item: dict[str, Any]) -> bool:
    """Say whether an object is of a kind that Kubernetes itself does not have."""
    return item["apiVersion"] in GROUPS


def validate(item: dict[str, Any]) -> None:
    """Raise ``jsonschema.ValidationError`` for an object that its definition does not describe."""
    kinds = json.loads((SCHEMAS / GROUPS[item["apiVersion"]]).read_text())
    schema = _closed(kinds[item["kind"]])
    schema["properties"]["metadata"] = {
        "type": "object"
    }  # as every object's, and not the definition's to say
    jsonschema.validate(item, schema)


def _closed(schema: Any) -> Any:
    """Return the schema with unknown fields refused; an API server drops them without a word."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if "properties" in closed and isinstance(closed["properties"], dict) and "type" in closed:
        closed.setdefault("additionalProperties", False)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed = {"type": ["integer", "string"]}
    return closed
