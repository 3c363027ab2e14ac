"""Which exporters the standard ``OTEL_*`` environment asks for; importing this imports no SDK."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Literal

Signal = Literal["traces", "metrics"]

_BY_PROTOCOL = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_NOT_PUSHED = frozenset({"none", "prometheus"})
"""``prometheus`` is the specification's word for being asked, which ``status`` and the gateway see to."""


class ExporterConfigurationError(ValueError):
    """``OTEL_*`` asks for an exporter or protocol that is not installed."""


def exporter_names(signal: Signal) -> list[str]:
    """
    Return the exporters that ``OTEL_<SIGNAL>_EXPORTER`` names, or ``otlp`` when only an endpoint is set.

    Empty when ``OTEL_SDK_DISABLED=true``, when ``none`` is named, and when nothing is set.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    endpoint = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    asked = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() or ("otlp" if endpoint else "none")
    return [name for part in asked.split(",") if (name := part.strip()) and name.lower() not in _NOT_PUSHED]


def exporter_class(signal: Signal, name: str) -> Callable[[], Any]:
    """Return what makes an exporter; imports it. Raises :class:`ExporterConfigurationError`."""
    group = f"opentelemetry_{signal}_exporter"
    for entry_point in entry_points(group=group, name=_entry_point_name(signal, name)):
        found: Callable[[], Any] = entry_point.load()
        return found
    known = sorted({entry.name for entry in entry_points(group=group)})
    raise ExporterConfigurationError(
        f"OTEL_{signal.upper()}_EXPORTER names {name!r}, which is not installed; "
        f"installed are otlp, {', '.join(known)}"
    )


def _entry_point_name(signal: Signal, name: str) -> str:
    if name != "otlp":
        return name
    protocol = (
        os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    ).strip()
    if protocol not in _BY_PROTOCOL:
        raise ExporterConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; use one of {', '.join(_BY_PROTOCOL)}"
        )
    return _BY_PROTOCOL[protocol]
