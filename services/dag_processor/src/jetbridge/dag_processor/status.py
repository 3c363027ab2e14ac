"""What a Dag processor counts, for those who watch it."""

from __future__ import annotations

from jetbridge.dag_processor.leases import BundleLeases
from jetbridge.telemetry.metrics import Metrics

_PARSE_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""To beyond Airflow's limit for a parse, 50 s."""


class DagProcessorMetrics:
    """Bundles that are held here, and how long their files take to parse."""

    def __init__(self, leases: BundleLeases) -> None:
        self.all = Metrics("dag_processor")
        self.parsed = self.all.histogram(
            "parse", "seconds", "Time of parses, one observation for each file", buckets=_PARSE_SECONDS
        )
        held = self.all.gauge("held", "bundles", "Bundles that this Dag processor parses now")
        held.set_function(lambda: len(leases.epochs))
