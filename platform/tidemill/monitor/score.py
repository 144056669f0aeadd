"""How much of a project's quality is proven: the ML Test Score and the MLOps level, each line with its evidence.

The score is that of Breck, Cai, Nielsen, Salib and Sculley, "The ML Test Score: A Rubric for ML Production Readiness"
(2017): 28 tests in four sections; a test counts 0.5 where it was done once, 1 where it is done again and again by
itself; the score is the least of the four sections' sums. The levels are Google's "MLOps: Continuous delivery and
automation pipelines in machine learning": 0 by hand, 1 training runs by itself, 2 changes are tested and delivered by
themselves. Nothing counts that the project's own records or files do not show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidemill.metadata.reports import ReportRepository
from tidemill.monitor import evidence as proof
from tidemill.monitor.evidence import NONE, Evidence, Records

if TYPE_CHECKING:
    from tidemill.project import Project


@dataclass(frozen=True, kw_only=True)
class Line:
    """One test of the rubric, and where its evidence is looked for; None where no record of a project could tell."""

    section: str
    asks: str
    look: Callable[[Records], Evidence] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredTest:
    section: str
    asks: str
    points: float
    evidence: str


@dataclass(frozen=True, kw_only=True)
class ProjectScore:
    """`score` is the least of `sections`; `meaning` is the rubric's own reading of it."""

    score: float
    meaning: str
    sections: dict[str, float]
    level: int
    level_evidence: str
    tests: tuple[ScoredTest, ...]

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"tests": [vars(test) for test in self.tests]}


DATA, MODEL, INFRASTRUCTURE, MONITORING = "features and data", "model development", "ML infrastructure", "monitoring"

RUBRIC = (
    Line(section=DATA, asks="Feature expectations are captured in a schema", look=proof.schema),
    Line(section=DATA, asks="All features are beneficial"),
    Line(section=DATA, asks="No feature's cost is too much"),
    Line(section=DATA, asks="Features adhere to meta-level requirements", look=proof.requirements),
    Line(section=DATA, asks="The data pipeline has appropriate privacy controls", look=proof.access),
    Line(section=DATA, asks="New features can be added quickly", look=proof.new_features),
    Line(section=DATA, asks="All input feature code is tested", look=proof.feature_code),
    Line(section=MODEL, asks="Every model specification is reviewed and submitted", look=proof.versioned),
    Line(section=MODEL, asks="Offline and online metrics correlate", look=proof.online_metrics),
    Line(section=MODEL, asks="All hyperparameters have been tuned"),
    Line(section=MODEL, asks="The impact of model staleness is known", look=proof.staleness),
    Line(section=MODEL, asks="A simpler model is not better"),
    Line(section=MODEL, asks="Model quality is sufficient on all important data slices"),
    Line(section=MODEL, asks="The model has been tested for considerations of inclusion"),
    Line(section=INFRASTRUCTURE, asks="Training is reproducible", look=proof.reproducible),
    Line(section=INFRASTRUCTURE, asks="Model specification code is unit tested", look=proof.model_code),
    Line(section=INFRASTRUCTURE, asks="The full ML pipeline is integration tested", look=proof.pipeline),
    Line(section=INFRASTRUCTURE, asks="Model quality is validated before serving", look=proof.gates),
    Line(section=INFRASTRUCTURE, asks="The model can be debugged on a single example", look=proof.examples),
    Line(section=INFRASTRUCTURE, asks="Models are tried out on a canary before serving"),
    Line(section=INFRASTRUCTURE, asks="Models can be quickly and safely rolled back", look=proof.rollback),
    Line(section=MONITORING, asks="Dependency changes result in notification"),
    Line(section=MONITORING, asks="Data invariants hold in training and serving inputs", look=proof.invariants),
    Line(section=MONITORING, asks="Training and serving features compute the same values", look=proof.parity),
    Line(section=MONITORING, asks="Models are not too stale", look=proof.age),
    Line(section=MONITORING, asks="The model is numerically stable", look=proof.finite),
    Line(section=MONITORING, asks="Speed, latency, throughput and memory have not regressed"),
    Line(section=MONITORING, asks="Prediction quality on served data has not regressed", look=proof.served_quality),
)


def score(project: Project, *, at: datetime) -> ProjectScore:
    """Compute the score from what the project has recorded by `at`, and keep it as a report."""
    records = Records(project=project, at=at)
    tests = tuple(_scored(test, records) for test in RUBRIC)
    sections = {name: sum(t.points for t in tests if t.section == name) for name in _sections()}
    total = min(sections.values())
    level, why = proof.level(records)
    found = ProjectScore(
        score=total, meaning=_meaning(total), sections=sections, level=level, level_evidence=why, tests=tests
    )
    ReportRepository(project.database, project.name).add("score", project.name, found.to_dict(), at=at)
    return found


def _scored(test: Line, records: Records) -> ScoredTest:
    found = test.look(records) if test.look is not None else NONE
    return ScoredTest(section=test.section, asks=test.asks, points=found.points, evidence=found.text)


def _sections() -> list[str]:
    return list(dict.fromkeys(test.section for test in RUBRIC))


def _meaning(total: float) -> str:
    if total == 0:
        return "more of a research project than a production system"
    if total <= 1:
        return "not totally untested, but worth looking for serious holes"
    if total <= 2:
        return "a first pass at production, more investment may be needed"
    if total <= 3:
        return "reasonably tested, but more could be automated"
    if total <= 5:
        return "strong levels of automated testing and monitoring"
    return "exceptional levels of automated testing and monitoring"
