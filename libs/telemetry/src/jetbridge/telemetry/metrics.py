"""
Prometheus metrics with one naming rule: ``jetbridge_<service>_<what>_<unit>``, counters ``…_total``.

The unit is a base unit (``seconds``, ``bytes``, ``ratio``) or the plural of the thing that is counted
(``polls``, ``leases``). Names are built from their parts, so that a wrong one cannot be registered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

BASE_UNITS = frozenset({"seconds", "bytes", "ratio", "timestamp_seconds"})
THINGS = frozenset(
    {
        "agents",
        "bundles",
        "connections",
        "errors",
        "heartbeats",
        "leases",
        "messages",
        "objects",
        "offers",
        "polls",
        "records",
        "reports",
        "requests",
        "retries",
        "slots",
        "tasks",
        "tokens",
        "triggers",
        "uploads",
        "workloads",
    }
)
"""What may be counted. Add a word here rather than inventing a second one for the same thing."""

LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""From a bus round trip (about 1 ms) to the longest poll (60 s)."""

_UNITS = "|".join(sorted(BASE_UNITS | THINGS, key=len, reverse=True))
NAME_PATTERN = re.compile(rf"^jetbridge_[a-z][a-z0-9]*(?:_[a-z0-9]+)+_(?:{_UNITS})(?:_total)?$")


class MetricNameError(ValueError):
    """A metric whose name would not follow the rule; the text says what is wrong."""


class Metrics:
    """
    The metrics of one service process, in a registry of their own.

    :param service: first part of every name, for example ``gateway``
    :param process_metrics: also expose CPU, memory, file descriptors and garbage collection
    """

    def __init__(self, service: str, *, process_metrics: bool = True) -> None:
        self.service = service
        self.registry = CollectorRegistry(auto_describe=True)
        if process_metrics:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def counter(self, what: str, unit: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """Register ``jetbridge_<service>_<what>_<unit>_total``; raises :class:`MetricNameError`."""
        return Counter(self._name(what, unit), help_text, labels, registry=self.registry)

    def gauge(self, what: str, unit: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """Register ``jetbridge_<service>_<what>_<unit>``; raises :class:`MetricNameError`."""
        return Gauge(self._name(what, unit), help_text, labels, registry=self.registry)

    def histogram(
        self,
        what: str,
        unit: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = LATENCY_BUCKETS_SECONDS,
    ) -> Histogram:
        """Register ``jetbridge_<service>_<what>_<unit>``; ``buckets`` are upper bounds in that unit."""
        return Histogram(self._name(what, unit), help_text, labels, registry=self.registry, buckets=buckets)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the body and the content type of an answer to ``GET /metrics`` with that ``Accept``."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _name(self, what: str, unit: str) -> str:
        if unit not in BASE_UNITS | THINGS:
            known = ", ".join(sorted(BASE_UNITS | THINGS))
            raise MetricNameError(f"metric {what!r} has the unknown unit {unit!r}; known are {known}")
        name = f"jetbridge_{self.service}_{what}_{unit}"
        if not NAME_PATTERN.match(name) or what.endswith("_total"):
            raise MetricNameError(
                f"metric name {name!r} is not jetbridge_<service>_<what>_<unit> in lower snake case"
            )
        return name


def badly_named(registry: CollectorRegistry) -> list[str]:
    """Return the names in a registry that break the rule; Python's own process metrics are exempt."""
    names = (family.name for family in registry.collect())
    return sorted(n for n in names if not n.startswith(("process_", "python_")) and not NAME_PATTERN.match(n))
