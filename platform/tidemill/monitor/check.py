"""One look at a model in service: drift, freshness, performance, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.clock import as_utc
from tidemill.definitions.catalog import Catalog
from tidemill.errors import TidemillError
from tidemill.metadata.reports import ReportRepository
from tidemill.models.artifact import read_manifest
from tidemill.models.manifest import Manifest
from tidemill.monitor import findings
from tidemill.monitor.drift import Drift, Verdict, drift_of, worst
from tidemill.monitor.findings import Finding, Severity
from tidemill.monitor.freshness import Freshness, freshness
from tidemill.monitor.performance import PerformanceReport, performance
from tidemill.monitor.served import documents, served_frame

if TYPE_CHECKING:
    from tidemill.project import Project

WINDOW = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """Drift of a model's features, furthest moved first, and of its predictions; both empty before it ever served."""

    version: int | None
    rows: int
    features: tuple[Drift, ...] = ()
    prediction: Drift | None = None

    @property
    def verdict(self) -> Verdict:
        return worst(self.features)

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "rows": self.rows,
            "verdict": self.verdict.value,
            "features": [drift.to_dict() for drift in self.features],
            "prediction": None if self.prediction is None else self.prediction.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class MonitorReport:
    """A model over the `window` before `at`. `ok` where no finding is critical."""

    model: str
    at: datetime
    window: timedelta
    drift: DriftReport
    freshness: tuple[Freshness, ...]
    performance: PerformanceReport
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.severity is not Severity.CRITICAL for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "at": self.at.isoformat(),
            "window_seconds": self.window.total_seconds(),
            "ok": self.ok,
            "drift": self.drift.to_dict(),
            "freshness": [state.to_dict() for state in self.freshness],
            "performance": self.performance.to_dict(),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def monitor(project: Project, model: str, *, at: datetime, window: timedelta = WINDOW) -> MonitorReport:
    """Look at a model's last `window` and keep what was found. Raises NotDefinedError for an unknown model."""
    at, definition = as_utc(at), project.catalog.model(model)
    drift = model_drift(project, model, at=at, window=window)
    fresh = [
        state for state in freshness(project, at=at) if state.view in _views_of(project.catalog, definition.service)
    ]
    performed = performance(project, model, at=at, window=window)
    report = MonitorReport(
        model=model,
        at=at,
        window=window,
        drift=drift,
        freshness=tuple(fresh),
        performance=performed,
        findings=_findings(project, model, at, drift, fresh, performed),
    )
    ReportRepository(project.database, project.name).add("monitor", model, report.to_dict(), at=at)
    return report


def model_drift(project: Project, model: str, *, at: datetime, window: timedelta = WINDOW) -> DriftReport:
    """Compare the vectors served in the `window` before `at` with the champion's training data."""
    served = project.predictions.scan(model, at - window, at)
    manifest = _champion(project, model)
    if manifest is None:
        return DriftReport(version=None, rows=served.height)
    found = documents(served["features"])
    vectors = served_frame(found, manifest.features) if found else pl.DataFrame()
    predictions = served.select(pl.col("prediction").alias(manifest.prediction_baseline.name))
    return DriftReport(
        version=manifest.version,
        rows=served.height,
        features=drift_of(manifest.baseline, vectors),
        prediction=drift_of([manifest.prediction_baseline], predictions)[0],
    )


def _champion(project: Project, model: str) -> Manifest | None:
    deployment = project.deployments.current(model)
    if deployment is None:
        return None
    try:
        return read_manifest(deployment.folder(project.root))[0]
    except TidemillError:
        return None


def _views_of(catalog: Catalog, service: str) -> set[str]:
    """The views a service reads, those behind its on-demand features included."""
    names = {projection.view for projection in catalog.service(service).projections}
    behind = {i.view for name in names if catalog.is_on_demand(name) for i in catalog.on_demand_view(name).inputs}
    return names | behind


def _findings(
    project: Project,
    model: str,
    at: datetime,
    drift: DriftReport,
    fresh: list[Freshness],
    performed: PerformanceReport,
) -> tuple[Finding, ...]:
    found = [item for state in fresh for item in findings.of_freshness(state, at=at)]
    found += [item for one in drift.features for item in findings.of_drift(one)]
    if drift.prediction is not None:
        found += findings.of_drift(drift.prediction, prediction=True)
    version = None if drift.version is None else performed.of(drift.version)
    if version is not None:
        found += findings.of_performance(project.catalog.model(model), version)
    found += _on_what_is_missing(drift, performed)
    order = list(Severity)
    return tuple(sorted(found, key=lambda item: -order.index(item.severity)))


def _on_what_is_missing(drift: DriftReport, performed: PerformanceReport) -> list[Finding]:
    if drift.version is None:
        what, advice = "There is no champion to compare with.", "Train and promote one: `tidemill train`."
    elif not drift.rows:
        what, advice = "Nothing was predicted in this window.", "Ask for a longer --window, or look at the callers."
    elif not performed.labelled:
        what, advice = "No outcome is known yet.", "Extract the label's source; performance follows by itself."
    else:
        return []
    return [Finding(severity=Severity.INFO, subject=performed.model, what=what, advice=advice)]
