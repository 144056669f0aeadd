"""What a serving process counts and times, for Prometheus.

Every application has a registry of its own, so that several can live in one process (tests do) and none counts twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)


class QuickCounter(Collector):
    """A counter of plain numbers that one thread adds to, turned into a metric when asked for.

    The client library's own meters take a lock for each number, which is more than answering takes elsewhere.
    """

    def __init__(self, name: str, about: str, labels: tuple[str, ...]) -> None:
        self._name, self._about, self._labels = name, about, labels
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, labels: tuple[str, ...], count: int = 1) -> None:
        self._counts[labels] = self._counts.get(labels, 0) + count

    def collect(self) -> Iterator[Metric]:
        metric = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for labels, count in self._counts.copy().items():
            metric.add_metric(labels, count)
        yield metric


class QuickHistogram(Collector):
    """The same for a histogram."""

    def __init__(self, name: str, about: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._name, self._about, self._labels, self._bounds = name, about, labels, bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def collect(self) -> Iterator[Metric]:
        metric = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, counts in self._counts.copy().items():
            metric.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), self._sums.get(labels, 0.0))
        yield metric


class ServedVersions(Collector):
    """The version of each model that is served. `versions` is replaced as a whole: a model that is gone is gone."""

    def __init__(self) -> None:
        self.versions: Mapping[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        metric = GaugeMetricFamily(
            "tidemill_model_version", "The version of each model that is served", labels=("model",)
        )
        for model, version in self.versions.items():
            metric.add_metric((model,), version)
        yield metric


class Metrics:
    """The meters of one application. The quick ones are to be used from its event loop only."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = QuickCounter("tidemill_http_requests", "Requests answered", ("route", "status"))
        self._times = QuickHistogram(
            "tidemill_http_seconds", "From the request's head to the answer", ("route",), _SECONDS
        )
        self.predictions = QuickCounter("tidemill_predictions", "Rows predicted and logged", ("model", "version"))
        self.pushed = QuickCounter("tidemill_pushed_rows", "Rows pushed", ("source", "outcome"))
        self.batch_rows = QuickHistogram("tidemill_batch_rows", "Rows answered together", ("kind", "name"), _ROWS)
        self.stage_seconds = QuickHistogram(
            "tidemill_prediction_stage_seconds", "Where a batch of predictions spends its time", ("model", "stage"),
            _SECONDS,
        )  # fmt: skip
        for quick in (self._requests, self._times, self.predictions, self.pushed, self.batch_rows, self.stage_seconds):
            self.registry.register(quick)
        self.values = Counter(
            "tidemill_feature_values_not_present", "Feature values read that were not PRESENT",
            ("service", "feature", "status"), registry=self.registry,
        )  # fmt: skip
        self.stale = Counter(
            "tidemill_feature_values_stale", "Feature values older than their freshness objective",
            ("service", "feature"), registry=self.registry,
        )  # fmt: skip
        self.pending = Gauge("tidemill_pending_requests", "Requests waiting", ("kind", "name"), registry=self.registry)
        self.served = ServedVersions()
        self.registry.register(self.served)
        self.catalog_version = Gauge("tidemill_catalog_version", "The catalog in force", registry=self.registry)
        self.log_waiting = Gauge(
            "tidemill_prediction_log_waiting_seconds",
            "How long the disk keeps the prediction log waiting",
            registry=self.registry,
        )
        self.refresh_failures = Counter(
            "tidemill_refresh_failures", "Looks for new catalogs and models that failed", registry=self.registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count and time one answer. To be called from the event loop only."""
        self._requests.add((route, str(status)))
        self._times.observe((route,), seconds)

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
