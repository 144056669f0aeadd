"""Models: their versions with metrics, who served when, and changing who serves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tidemill.metadata.reports import ReportRepository, StoredReport
from tidemill.models.artifact import read_manifest
from tidemill.models.deployments import CHALLENGER, CHAMPION, Deployment, previous_champion
from tidemill.models.manifest import DatasetRecord, Manifest
from tidemill.project import Project
from tidemill_serving.dashboard import charts
from tidemill_serving.dashboard.markup import (
    EMPTY,
    NOTHING,
    Tone,
    ago,
    card,
    chip,
    code,
    count,
    definitions,
    empty,
    grid,
    join,
    link,
    metric_name,
    moment,
    page_head,
    stack,
    table,
    trouble,
)
from tidemill_serving.dashboard.reading import Trouble, attempt


@dataclass(frozen=True, kw_only=True)
class VersionFacts:
    """A version that has an artifact. `manifest` is None where it cannot be read, and `problem` says why."""

    version: int
    aliases: tuple[str, ...]
    manifest: Manifest | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model, its versions and champions newest first; `previous` is whom a rollback would bring back."""

    name: str
    description: str
    service: str
    metrics: tuple[str, ...]
    versions: tuple[VersionFacts, ...]
    history: tuple[Deployment, ...]
    previous: Deployment | None
    decision: StoredReport | None

    @property
    def champion(self) -> Deployment | None:
        return self.history[0] if self.history else None


@dataclass(frozen=True, kw_only=True)
class ModelsFacts:
    now: datetime
    models: tuple[ModelFacts, ...]
    trouble: str | None = None


def gather(project: Project) -> ModelsFacts:
    now, catalog = project.clock.now(), attempt(lambda: project.catalog)
    if isinstance(catalog, Trouble):
        return ModelsFacts(now=now, models=(), trouble=catalog.text)
    found = attempt(lambda: tuple(_model(project, model.name) for model in catalog.models))
    if isinstance(found, Trouble):
        return ModelsFacts(now=now, models=(), trouble=found.text)
    return ModelsFacts(now=now, models=found)


def _model(project: Project, name: str) -> ModelFacts:
    declared, history = project.catalog.model(name), project.deployments.history(name)
    champions = [item for item in history if item.alias == CHAMPION]
    reports = ReportRepository(project.database, project.name)
    return ModelFacts(
        name=name,
        description=declared.description,
        service=declared.service,
        metrics=declared.metrics,
        versions=_versions(project, name, history),
        history=tuple(champions),
        previous=previous_champion(champions),
        decision=reports.newest("retrain", name) or reports.newest("training", name),
    )


def _versions(project: Project, name: str, history: list[Deployment]) -> tuple[VersionFacts, ...]:
    """Whatever has an artifact in the models' folder, or was ever deployed."""
    folder = project.state / "models" / name
    folders = {int(item.name): item for item in folder.glob("[0-9]*") if item.name.isdigit()}
    for deployment in history:
        folders.setdefault(deployment.version, deployment.folder(project.root))
    named: dict[str, int] = {}
    for deployment in history:
        named.setdefault(deployment.alias, deployment.version)
    return tuple(_version(version, folders[version], named) for version in sorted(folders, reverse=True))


def _version(version: int, folder: Path, named: dict[str, int]) -> VersionFacts:
    aliases = tuple(alias for alias in (CHAMPION, CHALLENGER) if named.get(alias) == version)[:1]
    manifest = attempt(lambda: read_manifest(folder)[0])
    if isinstance(manifest, Trouble):
        return VersionFacts(version=version, aliases=aliases, manifest=None, problem=manifest.text)
    return VersionFacts(version=version, aliases=aliases, manifest=manifest)


def render_head() -> Markup:
    return page_head("Models", "Every version, how good it was on later data, and who served when.")


def render_nothing(facts: ModelsFacts) -> Markup:
    why = facts.trouble or "The definitions declare none. Declare a Model beside the features that it reads, then:"
    return empty("No models yet", why, "tidemill apply")


def render_versions(facts: ModelFacts, now: datetime) -> Markup:
    """What a model is, and its versions."""
    reads = Markup("reads the service {}").format(link("/features", facts.service))
    head = Markup("<h2 class='section'>{} <span class='soft'>{}</span></h2>").format(facts.name, reads)
    described = Markup("<p class='soft'>{}</p>").format(facts.description) if facts.description else EMPTY
    if not facts.versions:
        nothing = empty("No version yet", "Nothing has been trained.", f"tidemill train {facts.name}")
        return join([head, described, nothing])
    return join([head, described, _version_table(facts, now)])


def render_history(facts: ModelFacts, now: datetime) -> Markup:
    """Who served when, what was decided last, and how honest the champion's probabilities were."""
    if not facts.versions:
        return EMPTY
    champion = next((item for item in facts.versions if CHAMPION in item.aliases), None)
    return grid(stack(_history(facts, now), _decision(facts, now)), _calibration(champion))


def _version_table(facts: ModelFacts, now: datetime) -> Markup:
    rows = []
    for item in facts.versions:
        named = join(chip(alias, Tone.GOOD if alias == CHAMPION else Tone.PLAIN) for alias in item.aliases)
        if item.manifest is None:
            rows.append((f"{item.version}", named, trouble(item.problem), "", "", *("" for _ in facts.metrics)))
            continue
        dataset = item.manifest.dataset
        rows.append(
            (
                f"{item.version}",
                named,
                Markup("{}<br><span class='soft'>known until {}</span>").format(
                    count(dataset.rows, "row"), moment(dataset.until)
                ),
                ago(item.manifest.trained_at, now),
                _tested(dataset),
                *(_metric(item.manifest.metrics.get(metric)) for metric in facts.metrics),
            )
        )
    heads = ("Version", "", "Learned from", "Trained", "Tested on", *map(metric_name, facts.metrics))
    numbers = (0, *range(5, 5 + len(facts.metrics)))
    note = "Each is tested on days that it was not fitted on; compare figures of the same days only."
    return card(
        "Versions", table(heads, rows, numbers=numbers, label="Versions with their metrics"), note=note, wide=True
    )


def _tested(dataset: DatasetRecord) -> Markup:
    days = f"{dataset.test_start:%-d %b} \u2013 {dataset.until:%-d %b %Y}"
    return Markup("<span class='interval'>{}</span><br><span class='soft'>{}</span>").format(
        days, count(dataset.test_rows, "row")
    )


def _metric(found: float | None) -> str:
    return NOTHING if found is None else f"{found:.4f}"


def _history(facts: ModelFacts, now: datetime) -> Markup:
    items = join(
        Markup("<li><b>version {}</b><span>{}</span><p>{}</p></li>").format(
            item.version, Markup("{}, {}").format(moment(item.changed_at), ago(item.changed_at, now)), item.reason
        )
        for item in facts.history[:12]
    )
    body = Markup("<ol class='history'>{}</ol>").format(items)
    return card("Champions", body if facts.history else empty("No champion yet", "Promote a version to let it serve."))


def _decision(facts: ModelFacts, now: datetime) -> Markup:
    if facts.decision is None:
        return EMPTY
    body: dict[str, Any] = facts.decision.body
    outcome = body.get("outcome") or ("promoted" if body.get("promoted") else "refused")
    tone = {"promoted": Tone.GOOD, "refused": Tone.WATCH}.get(str(outcome), Tone.PLAIN)
    reasons = join(Markup("<li>{}</li>").format(reason) for reason in body.get("reasons", []))
    said = definitions([("when", ago(facts.decision.made_at, now)), ("outcome", chip(str(outcome), tone))])
    return card(
        "Last decision", said, Markup("<ul class='reasons'>{}</ul>").format(reasons), note=code(facts.decision.kind)
    )


def _calibration(champion: VersionFacts | None) -> Markup:
    if champion is None or champion.manifest is None or not champion.manifest.calibration:
        return EMPTY
    bins = [(item.predicted, item.observed, item.rows) for item in champion.manifest.calibration]
    label = "Calibration of the champion on its test part: predicted against observed"
    plot = charts.reliability(bins, label=label)
    return card("Champion's calibration", plot, note="on its test days; a larger dot is more rows")
