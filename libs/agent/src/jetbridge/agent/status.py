"""What every agent counts, and how those who watch it get to see that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jetbridge.agent.settings import AgentSettings
from jetbridge.telemetry import measures
from jetbridge.telemetry.measures import Takers, listening
from jetbridge.telemetry.metrics import Metrics
from jetbridge.telemetry.status import watched

_PIPE = "measures"


class AgentMetrics:
    """
    Bytes that go between an agent and its site's object store.

    :param service: first part of every name, for example ``worker``
    """

    def __init__(self, service: str) -> None:
        self.all = Metrics(service)
        self.xcom = self.all.counter(
            "xcom", "bytes", "Bytes of XCom values, by whether they were written or read", ["direction"]
        )
        self.logs = self.all.counter("uploaded_log", "bytes", "Bytes of logs that went to the object store")
        for direction in ("written", "read"):  # there from the start, so that a rate has a beginning
            self.xcom.labels(direction)

    @property
    def takers(self) -> Takers:
        """Return what takes the measures of this agent's processes."""
        return {
            measures.XCOM_WRITTEN_BYTES: self.xcom.labels("written").inc,
            measures.XCOM_READ_BYTES: self.xcom.labels("read").inc,
            measures.LOG_UPLOADED_BYTES: self.logs.inc,
        }


def measuring(settings: AgentSettings) -> dict[str, str]:
    """Return the environment by which an agent's processes tell what they measure."""
    return {measures.VARIABLE: str(_pipe(settings))}


@contextmanager
def watched_agent(
    settings: AgentSettings, metrics: AgentMetrics, is_well: Callable[[], bool]
) -> Iterator[None]:
    """Serve and push metrics, and take what the agent's processes measure, while the block runs."""
    with listening(_pipe(settings), metrics.takers), watched(metrics.all, settings.metrics_port, is_well):
        yield


def _pipe(settings: AgentSettings) -> Path:
    return settings.data_dir / _PIPE
