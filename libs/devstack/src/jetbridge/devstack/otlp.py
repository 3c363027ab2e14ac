"""A collector for tests and for looking: takes OTLP over HTTP, keeps spans and metrics in memory."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_ERROR = 2


@dataclass(frozen=True, kw_only=True)
class ReceivedSpan:
    """One span as it arrived. Ids are hexadecimal, times in nanoseconds since 1970; a root's parent is ''."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReceivedPoint:
    """
    One value of one series as it arrived.

    ``instance`` tells processes of one service apart. Of a histogram ``value`` is the sum, and ``buckets``
    are counts that are not cumulated.
    """

    service: str
    instance: str
    name: str
    unit: str
    attributes: dict[str, Any]
    value: float
    count: int = 0
    buckets: tuple[int, ...] = ()


class Collector:
    """
    Enter it to listen on a free port of ``host``; :attr:`endpoint` is what processes are told.

    ``raw`` holds the bodies of all traces as they came, for whoever searches for what must not be in them,
    ``raw_metrics`` those of metrics.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.raw: list[bytes] = []
        self.raw_metrics: list[bytes] = []
        self._points: list[ReceivedPoint] = []
        self._spans: list[ReceivedSpan] = []
        self._arrived = threading.Condition()
        takers = {"/v1/traces": self._take, "/v1/metrics": self._take_metrics}
        self._server = _Server((host, 0), takers)
        self._thread = threading.Thread(target=self._server.serve_forever, name="otlp-collector")
        self.endpoint = f"http://{host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Return what has arrived."""
        with self._arrived:
            return list(self._spans)

    @property
    def points(self) -> list[ReceivedPoint]:
        """Return the values of metrics that have arrived, every export's anew."""
        with self._arrived:
            return list(self._points)

    def wait_points(self, enough: Callable[[list[ReceivedPoint]], bool], timeout_seconds: float) -> None:
        """Wait until ``enough`` says so of all points, or the time is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: enough(self._points), timeout_seconds)

    def wait(
        self, enough: Callable[[list[ReceivedSpan]], bool], timeout_seconds: float
    ) -> list[ReceivedSpan]:
        """Wait until ``enough`` says so of all spans, or the time is over; returns the spans either way."""
        with self._arrived:
            self._arrived.wait_for(lambda: enough(self._spans), timeout_seconds)
            return list(self._spans)

    def _take(self, body: bytes) -> None:
        spans = list(_read(ExportTraceServiceRequest.FromString(body)))
        with self._arrived:
            self.raw.append(body)
            self._spans.extend(spans)
            self._arrived.notify_all()

    def _take_metrics(self, body: bytes) -> None:
        points = list(_read_points(ExportMetricsServiceRequest.FromString(body)))
        with self._arrived:
            self.raw_metrics.append(body)
            self._points.extend(points)
            self._arrived.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], takers: Mapping[str, Callable[[bytes], None]]) -> None:
        super().__init__(address, _Handler)
        self.takers = takers


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take one export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        take = self.server.takers.get(self.path)
        if take is not None:
            take(body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(404 if take is None else 200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing; each export would be a line."""


def _read(request: ExportTraceServiceRequest) -> Iterable[ReceivedSpan]:
    for resource_spans in request.resource_spans:
        service = _attributes(resource_spans.resource.attributes).get("service.name", "")
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    service=service,
                    name=span.name,
                    kind=_KINDS[span.kind],
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    failed=span.status.code == _ERROR,
                    attributes=_attributes(span.attributes),
                )


def _read_points(request: ExportMetricsServiceRequest) -> Iterable[ReceivedPoint]:
    for resource_metrics in request.resource_metrics:
        origin = _attributes(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                data = getattr(metric, metric.WhichOneof("data") or "gauge")
                for point in data.data_points:
                    yield _point(origin, metric, point)


def _point(origin: Mapping[str, Any], metric: Any, point: Any) -> ReceivedPoint:
    is_histogram = metric.HasField("histogram")
    return ReceivedPoint(
        service=origin.get("service.name", ""),
        instance=origin.get("service.instance.id", ""),
        name=metric.name,
        unit=metric.unit,
        attributes=_attributes(point.attributes),
        value=point.sum if is_histogram else point.as_double or point.as_int,
        count=point.count if is_histogram else 0,
        buckets=tuple(point.bucket_counts) if is_histogram else (),
    )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
