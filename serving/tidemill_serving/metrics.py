"""What a serving process counts and times, for Prometheus.

Every application has a registry of its own, so that several can live in one process (tests do) and none counts twice.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)


class Metrics:
    """The meters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "tidemill_http_requests", "Requests answered", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "tidemill_http_seconds", "From the request's head to the answer", ("route",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
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
        self._route_meters: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        meters = self._route_meters.get((route, status))
        if meters is None:
            meters = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._route_meters[route, status] = meters
        meters[0].inc()
        meters[1].observe(seconds)

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
