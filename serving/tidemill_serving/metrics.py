"""What a serving process counts and times, for Prometheus.

Every application has a registry of its own, so that several can live in one process (tests do) and none counts twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)


class _Routes(Collector):
    """Requests and their times by route: plain numbers that one thread adds to, turned into metrics when asked for.

    The client library's own meters take a lock for each number, which is more than answering takes elsewhere.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._times: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, route: str, status: int, seconds: float) -> None:
        counts = self._counts
        counts[route, status] = counts.get((route, status), 0) + 1
        buckets = self._times.get(route)
        if buckets is None:
            buckets = self._times[route] = [0] * (len(_SECONDS) + 1)
        buckets[bisect_left(_SECONDS, seconds)] += 1
        self._sums[route] = self._sums.get(route, 0.0) + seconds

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("tidemill_http_requests", "Requests answered", labels=("route", "status"))
        for (route, status), count in self._counts.copy().items():
            requests.add_metric((route, str(status)), count)
        yield requests
        times = HistogramMetricFamily(
            "tidemill_http_seconds", "From the request's head to the answer", labels=("route",)
        )
        for route, buckets in self._times.copy().items():
            bounds = [*(str(bound) for bound in _SECONDS), "+Inf"]
            times.add_metric((route,), list(zip(bounds, accumulate(buckets), strict=True)), self._sums.get(route, 0.0))
        yield times


class Metrics:
    """The meters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._routes = _Routes()
        self.registry.register(self._routes)
        self.predictions = Counter(
            "tidemill_predictions", "Rows predicted and logged", ("model", "version"), registry=self.registry
        )
        self.batch_rows = Histogram(
            "tidemill_batch_rows", "Rows answered together", ("kind", "name"), buckets=_ROWS, registry=self.registry
        )
        self.stage_seconds = Histogram(
            "tidemill_prediction_stage_seconds", "Where a batch of predictions spends its time", ("model", "stage"),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.values = Counter(
            "tidemill_feature_values_not_present", "Feature values read that were not PRESENT",
            ("service", "feature", "status"), registry=self.registry,
        )  # fmt: skip
        self.stale = Counter(
            "tidemill_feature_values_stale", "Feature values older than their freshness objective",
            ("service", "feature"), registry=self.registry,
        )  # fmt: skip
        self.pushed = Counter("tidemill_pushed_rows", "Rows pushed", ("source", "outcome"), registry=self.registry)
        self.pending = Gauge("tidemill_pending_requests", "Requests waiting", ("kind", "name"), registry=self.registry)
        self.model_version = Gauge(
            "tidemill_model_version", "The version of each model that is served", ("model",), registry=self.registry
        )
        self.catalog_version = Gauge("tidemill_catalog_version", "The catalog in force", registry=self.registry)
        self.refresh_failures = Counter(
            "tidemill_refresh_failures", "Looks for new catalogs and models that failed", registry=self.registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count and time one answer. To be called from the event loop only."""
        self._routes.add(route, status, seconds)

    def not_present(self, service: str, statuses: Mapping[str, Sequence[str]]) -> None:
        """Count what a read did not find, found null or found too old."""
        for feature, column in statuses.items():
            if column.count("PRESENT") != len(column):
                for status, count in Tally(column).items():
                    if status != "PRESENT":
                        self.values.labels(service, feature, status).inc(count)

    def stale_values(self, service: str, stale: Mapping[str, Sequence[bool]]) -> None:
        """Count values older than their view's freshness objective, given the features that have some."""
        for feature, flags in stale.items():
            self.stale.labels(service, feature).inc(sum(flags))

    def page(self) -> bytes:
        return generate_latest(self.registry)
