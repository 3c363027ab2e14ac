"""
What a Prometheus registry holds, in OpenTelemetry's words. Importing this imports the SDK.

Names stay as they are, so the unit stays in them; a counter's lacks ``_total``, which Prometheus adds again
when it takes OTLP. All values are cumulative, as Prometheus' are.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric

_STARTED_NS = time.time_ns()
_SCOPE = InstrumentationScope("jetbridge")
_UNITS = {"seconds": "s", "bytes": "By", "ratio": "1"}

Labels = tuple[tuple[str, str], ...]


def resource(service: str, instance: str) -> Resource:
    """Return what the metrics are of; two gateways differ in their instance."""
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: f"jetbridge-{service}"}
    return Resource.create({SERVICE_INSTANCE_ID: instance, **named})


def metrics_data(origin: Resource, families: Iterable[Metric]) -> MetricsData:
    """Return an export of everything that counts, measures or buckets; other kinds are left out."""
    now = time.time_ns()
    metrics = [one for family in families if (one := _metric(family, now)) is not None]
    scoped = ScopeMetrics(scope=_SCOPE, metrics=metrics, schema_url="")
    return MetricsData([ResourceMetrics(resource=origin, scope_metrics=[scoped], schema_url="")])


def _metric(family: Metric, now: int) -> OtlpMetric | None:
    data: Sum | Gauge | Histogram
    if family.type == "counter":
        points = _numbers(family, f"{family.name}_total", now)
        data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    elif family.type == "gauge":
        data = Gauge(_numbers(family, family.name, now))
    elif family.type == "histogram":
        data = Histogram(_histograms(family, now), AggregationTemporality.CUMULATIVE)
    else:
        return None
    if not data.data_points:
        return None
    return OtlpMetric(family.name, family.documentation, _unit(family.name), data)


def _unit(name: str) -> str:
    thing = name.rpartition("_")[2]
    return _UNITS.get(thing, f"{{{thing}}}")


def _numbers(family: Metric, sample_name: str, now: int) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(sample.labels, _STARTED_NS, now, sample.value)
        for sample in family.samples
        if sample.name == sample_name
    ]


def _histograms(family: Metric, now: int) -> list[HistogramDataPoint]:
    buckets: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    sums: dict[Labels, float] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = tuple(labels.items())
        if sample.name.endswith("_bucket"):
            buckets[key].append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    return [_histogram(dict(key), cumulated, sums[key], now) for key, cumulated in buckets.items()]


def _histogram(
    labels: Mapping[str, str], cumulated: list[tuple[float, float]], total: float, now: int
) -> HistogramDataPoint:
    counts = [0.0, *(count for _, count in cumulated)]
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=_STARTED_NS,
        time_unix_nano=now,
        count=int(counts[-1]),
        sum=total,
        bucket_counts=[int(after - before) for before, after in pairwise(counts)],
        explicit_bounds=[bound for bound, _ in cumulated[:-1]],
        min=None,  # type: ignore[arg-type]  # optional in OTLP, and a registry does not keep it
        max=None,  # type: ignore[arg-type]
    )
