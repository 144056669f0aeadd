"""Where the evidence for each line of the score is found: the catalog, the ledger, reports, deployments and files."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from tidemill.errors import TidemillError
from tidemill.extract.declare import Extraction, extractions_of
from tidemill.metadata.reports import ReportRepository, StoredReport
from tidemill.models.artifact import read_manifest

if TYPE_CHECKING:
    from tidemill.definitions.catalog import Catalog, CodeReference
    from tidemill.models.manifest import Manifest
    from tidemill.project import Project

_PIPELINES = (".github/workflows", ".gitlab-ci.yml", ".ci", "Jenkinsfile", "azure-pipelines.yml", ".circleci")
_RECENT = timedelta(days=30)
_PATIENCE = 30.0  # seconds for Git to answer


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found, in words; 0.5 points for what was done once, 1 for what is done again and again by itself."""

    points: float
    text: str


NONE = Evidence(points=0.0, text="no evidence")


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a project has recorded by `at`, each looked up once."""

    project: Project
    at: datetime

    @property
    def catalog(self) -> Catalog:
        return self.project.catalog

    def reports(self, kind: str) -> list[StoredReport]:
        """Newest first."""
        return self._all_reports.get(kind, [])

    @cached_property
    def extractions(self) -> Sequence[Extraction]:
        try:
            return list(extractions_of(self.project.root).values())
        except TidemillError:
            return []

    @cached_property
    def champions(self) -> list[Manifest]:
        found = []
        for deployment in self.project.deployments.champions():
            try:
                found.append(read_manifest(deployment.folder(self.project.root))[0])
            except TidemillError:
                continue
        return found

    @cached_property
    def recent_predictions(self) -> pl.Series:
        return self.project.predictions.scan(None, self.at - _RECENT, None)["prediction"]

    @cached_property
    def repository(self) -> Path | None:
        """The top of the Git work tree that the project's folder lies in."""
        root = self.project.root
        return next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)

    @cached_property
    def tests(self) -> str:
        """The text of every test file of the project, or of the repository around it."""
        folders = [self.project.root / "tests", *([self.repository / "tests"] if self.repository else [])]
        files = {file for folder in folders for file in folder.rglob("test_*.py")}
        return "\n".join(file.read_text(errors="replace") for file in sorted(files))

    @cached_property
    def delivery(self) -> Path | None:
        """The definition of a pipeline that tests every change."""
        if self.repository is None:
            return None
        return next((self.repository / name for name in _PIPELINES if (self.repository / name).exists()), None)

    def is_tested(self, code: CodeReference) -> bool:
        """Whether a test names the function or imports its module."""
        names = (re.escape(code.qualname), rf"(?:import|from)\s+{re.escape(code.module)}")
        return any(re.search(rf"\b{name}\b", self.tests) for name in names)

    @cached_property
    def _all_reports(self) -> dict[str, list[StoredReport]]:
        found: dict[str, list[StoredReport]] = {}
        for report in ReportRepository(self.project.database, self.project.name).list(limit=10_000):
            found.setdefault(report.kind, []).append(report)
        return found


def schema(records: Records) -> Evidence:
    features = sum(len(view.features) for view in (*records.catalog.views, *records.catalog.on_demand_views))
    if not features:
        return NONE
    held = [extraction.source for extraction in records.extractions if extraction.contract is not None]
    if held and len(held) == len(records.extractions):
        return Evidence(points=1.0, text=f"{features} typed features; contracts of all {len(held)} extracted sources")
    text = f"{features} typed features; contracts of {len(held)} of {len(records.extractions)} extracted sources"
    return Evidence(points=0.5, text=text)


def requirements(records: Records) -> Evidence:
    """Definitions are checked at every apply: names, types, owners, what may be served."""
    history = records.project.catalogs.history(limit=100)
    if not history:
        return NONE
    return _often(len(history), "checked by {} applies of the definitions")


def access(records: Records) -> Evidence:
    if records.project.settings.api_token is None:
        return NONE
    return Evidence(points=0.5, text="the API asks for a token")


def new_features(records: Records) -> Evidence:
    history = [applied.catalog for applied in records.project.catalogs.history(limit=100)]
    grown = sum(1 for newer, older in pairwise(history) if _features(newer) - _features(older) and _features(older))
    return _often(grown, "{} applies added features to a project in service") if grown else NONE


def feature_code(records: Records) -> Evidence:
    functions = [view.function for view in records.catalog.on_demand_views]
    tested = [function.qualname for function in functions if records.is_tested(function)]
    if not tested:
        return NONE
    text = f"tests name {len(tested)} of {len(functions)} feature functions: {', '.join(tested)}"
    return Evidence(points=_half_without(records.delivery is not None and len(tested) == len(functions)), text=text)


def versioned(records: Records) -> Evidence:
    git = shutil.which("git")
    modules = {model.estimator.module for model in records.catalog.models}
    if git is None or records.repository is None or not modules:
        return NONE
    files = [f"{module.replace('.', '/')}.py" for module in sorted(modules)]
    command = [git, "-C", str(records.project.root), "ls-files", "--error-unmatch", *files]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:  # the work tree may lie on a disk that does not answer
        return NONE
    if done.returncode:
        return NONE
    return Evidence(points=0.5, text=f"{', '.join(files)} under version control; reviews leave no trace here")


def online_metrics(records: Records) -> Evidence:
    compared = [version for report in records.reports("monitor") for version in _rated(report)]
    return _often(len(compared), "{} comparisons of metrics on served data with those in training")


def staleness(records: Records) -> Evidence:
    faced = [
        report for report in records.reports("training") if (report.body.get("champion_before") or {}).get("metrics")
    ]
    return _often(len(faced), "{} challengers compared with an older champion on the same rows")


def reproducible(records: Records) -> Evidence:
    """A failed reproduction is evidence too, of the contrary."""
    found = records.reports("reproduction")
    equal = [report for report in found if report.body.get("equal")]
    if found and not found[0].body.get("equal"):
        return Evidence(points=0.0, text=f"the newest reproduction, of {found[0].made_at:%Y-%m-%d}, differed")
    return _often(len(equal), "{} reproductions, equal to the last bit")


def model_code(records: Records) -> Evidence:
    estimators = [model.estimator for model in records.catalog.models]
    tested = [code.qualname for code in estimators if records.is_tested(code)]
    if not tested:
        return NONE
    whole = records.delivery is not None and len(tested) == len(estimators)
    return Evidence(points=_half_without(whole), text=f"tests name {', '.join(tested)}")


def pipeline(records: Records) -> Evidence:
    """Data in, model out, served, verified: each step has left its record."""
    steps = {
        "materialized": bool(records.project.ledger.runs(limit=1, state="succeeded")),
        "trained": bool(records.champions),
        "served": bool(len(records.recent_predictions)),
        "verified": bool(records.reports("parity")),
    }
    if not all(steps.values()):
        return NONE
    again = records.delivery is not None
    text = "materialized to verified in one project" + (", and changes are tested by a pipeline" if again else "")
    return Evidence(points=_half_without(again), text=text)


def gates(records: Records) -> Evidence:
    gated = [model.name for model in records.catalog.models if model.gates]
    trained = [report for report in records.reports("training") if report.subject in gated]
    return _often(len(trained), "{} versions had to pass gates of metrics")


def examples(records: Records) -> Evidence:
    count = len(records.recent_predictions)
    if not count:
        return NONE
    return Evidence(points=1.0, text=f"{count:,} predictions of the last 30 days are kept with keys, vector and answer")


def rollback(records: Records) -> Evidence:
    changes = [change for model in records.catalog.models for change in records.project.deployments.history(model.name)]
    back = [change for change in changes if change.reason.startswith("rolled back")]
    if back:
        return Evidence(points=1.0, text=f"rolled back {len(back)} times, last to {back[0].model}@{back[0].version}")
    if len({(change.model, change.version) for change in changes}) > 1:
        return Evidence(points=0.5, text="an earlier champion is kept, never tried")
    return NONE


def invariants(records: Records) -> Evidence:
    held = sum(extraction.contract is not None for extraction in records.extractions)
    looks = len(records.reports("monitor"))
    if not held or not looks:
        return NONE
    text = f"contracts of {held} sources on what is trained on, {looks} looks at the drift of what is served"
    return Evidence(points=_half_without(looks > 1), text=text)


def parity(records: Records) -> Evidence:
    found = [report for report in records.reports("parity") if report.body.get("compared")]
    if not found:
        return NONE
    newest = found[0].body
    if not newest["ok"]:
        unexplained = newest["differences"]["unexplained"]
        return Evidence(points=0.0, text=f"the newest check left {unexplained:,} values unexplained")
    text = f"{newest['compared']:,} served values recomputed, none unexplained"
    return Evidence(points=_half_without(len(found) > 1), text=text)


def age(records: Records) -> Evidence:
    if not records.champions or len(records.champions) < len(records.catalog.models):
        return NONE
    oldest = max(records.at - champion.trained_at for champion in records.champions)
    watched = all(model.retrain for model in records.catalog.models)
    if not watched:
        return NONE
    text = f"every model has triggers to retrain; the oldest champion is {max(oldest.days, 0)} days old"
    return Evidence(points=_half_without(bool(records.reports("retrain"))), text=text)


def finite(records: Records) -> Evidence:
    predictions = records.recent_predictions
    if not len(predictions):
        return NONE
    wrong = len(predictions) - int((predictions.is_finite() & predictions.is_between(0, 1)).sum())
    if wrong:
        return Evidence(points=0.0, text=f"{wrong:,} of {len(predictions):,} predictions are no probability")
    return Evidence(points=1.0, text=f"all {len(predictions):,} predictions of the last 30 days are probabilities")


def served_quality(records: Records) -> Evidence:
    rated = [report for report in records.reports("monitor") if _rated(report)]
    if not rated:
        return NONE
    worse = [f["what"] for f in rated[0].body["findings"] if f["severity"] != "info" and "in training" in f["what"]]
    if worse:
        return Evidence(points=0.0, text=worse[0])
    return _often(len(rated), "{} looks at labelled predictions, no drop in the newest")


def level(records: Records) -> tuple[int, str]:
    """Google's MLOps level, with the evidence for it or for what is missing to the next."""
    served = bool(records.champions) and bool(len(records.recent_predictions))
    scheduled = any(run.kind == "scheduled" for run in records.project.ledger.runs(limit=1_000, state="succeeded"))
    triggered = all(model.retrain for model in records.catalog.models) and bool(records.reports("retrain"))
    missing = [
        text
        for there, text in (
            (served, "a champion that serves"),
            (scheduled, "materialization by the schedule"),
            (triggered, "a retraining decided by a trigger"),
        )
        if not there
    ]
    if missing:
        return 0, f"for level 1 there is no record of {', '.join(missing)}"
    if records.delivery is None:
        return 1, "features and training run by themselves; for level 2 no pipeline tests and delivers changes"
    return 2, f"features and training run by themselves, and {records.delivery.name} tests every change"


def _rated(report: StoredReport) -> list[dict]:
    """The versions in a monitoring report that have both: metrics on labelled predictions, and in training."""
    return [v for v in report.body["performance"]["versions"] if v["labelled"] and v["trained"]]


def _features(catalog: Catalog) -> set[tuple[str, str]]:
    return {(v.name, feature.name) for v in (*catalog.views, *catalog.on_demand_views) for feature in v.features}


def _often(count: int, text: str) -> Evidence:
    return Evidence(points=_half_without(count > 1), text=text.format(count)) if count else NONE


def _half_without(whole: bool) -> float:
    return 1.0 if whole else 0.5
