"""The first page: is all well, what time is it, and where in the loop did what last happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from markupsafe import Markup

from tidemill.clock import is_simulated
from tidemill.metadata.reports import ReportRepository, StoredReport
from tidemill.models.artifact import read_manifest
from tidemill.models.deployments import Deployment
from tidemill.project import Project
from tidemill_serving.dashboard import charts
from tidemill_serving.dashboard.markup import (
    EMPTY,
    NOTHING,
    Tone,
    ago,
    card,
    code,
    count,
    dot,
    empty,
    finding,
    grid,
    join,
    link,
    metric_name,
    page,
    replaced,
    table,
    tile,
    tiles,
)
from tidemill_serving.dashboard.reading import Memory, Trouble, attempt

_DAY = timedelta(days=1)
_FINDINGS = 4
_MOST_FAILED = 1_000
_predictions: Memory[tuple[int, ...]] = Memory(10)


@dataclass(frozen=True, kw_only=True)
class PartHealth:
    """A part of the system: how it stands and, in words, why."""

    name: str
    tone: Tone
    text: str


@dataclass(frozen=True, kw_only=True)
class Champion:
    """What a model serves. `deployment` is None before the first promotion; `score` is its first metric."""

    model: str
    metric: str
    deployment: Deployment | None
    score: float | None


@dataclass(frozen=True, kw_only=True)
class OverviewFacts:
    """`predictions` are counts for each of the last 24 hours; `steps` the loop's stages and when each last happened."""

    project: str
    now: datetime
    simulated: bool
    parts: tuple[PartHealth, ...]
    champions: tuple[Champion, ...]
    parity: StoredReport | None
    findings: tuple[dict[str, Any], ...]
    predictions: tuple[int, ...]
    failed_runs: int
    steps: tuple[tuple[str, datetime | None], ...]


def gather(project: Project) -> OverviewFacts:
    now = project.clock.now()
    reports = ReportRepository(project.database, project.name)
    catalog = attempt(lambda: project.catalog)
    models = () if isinstance(catalog, Trouble) else catalog.models
    runs = attempt(lambda: project.ledger.runs(limit=200))
    known_runs = [] if isinstance(runs, Trouble) else runs
    failed = attempt(lambda: project.ledger.runs(state="failed", limit=_MOST_FAILED))
    this_minute = (project.root, now.replace(second=0))
    predictions = attempt(lambda: _predictions.recall(this_minute, lambda: _by_hour(project, now)))
    parity = attempt(lambda: reports.newest("parity"))
    return OverviewFacts(
        project=project.name,
        now=now,
        simulated=is_simulated(project.clock),
        parts=_parts(project, catalog, runs),
        champions=tuple(_champion(project, model.name, model.metrics[0]) for model in models),
        parity=None if isinstance(parity, Trouble) else parity,
        findings=_findings(reports, [model.name for model in models]),
        predictions=() if isinstance(predictions, Trouble) else predictions,
        failed_runs=0 if isinstance(failed, Trouble) else sum(run.started_at > now - _DAY for run in failed),
        steps=_steps(reports, known_runs, now, predictions),
    )


def _parts(project: Project, catalog: Any, runs: Any) -> tuple[PartHealth, ...]:
    found = [_definitions(project, catalog)]
    found.append(_part("Online store", attempt(lambda: project.online.ping()), "Redis answers."))
    found.append(_part("Metadata", runs, "The database answers."))
    files = attempt(lambda: _newest_log(project))
    text = "Nothing predicted yet." if files is None else f"Kept in {files}."
    found.append(_part("Prediction log", files, text))
    return tuple(found)


def _definitions(project: Project, catalog: Any) -> PartHealth:
    if isinstance(catalog, Trouble):
        return PartHealth(name="Definitions", tone=Tone.BAD, text=catalog.text)
    views = len(catalog.views) + len(catalog.on_demand_views)
    shape = f"{count(views, 'feature view')}, {count(len(catalog.models), 'model')}"
    return PartHealth(name="Definitions", tone=Tone.GOOD, text=f"Version {project.applied.version}: {shape}.")


def _part(name: str, found: Any, well: str) -> PartHealth:
    if isinstance(found, Trouble):
        return PartHealth(name=name, tone=Tone.BAD, text=found.text)
    return PartHealth(name=name, tone=Tone.GOOD, text=well)


def _newest_log(project: Project) -> str | None:
    files = [file for file in project.predictions.folder.glob("**/*") if file.is_file()]
    return count(len(files), "file") if files else None


def _by_hour(project: Project, now: datetime) -> tuple[int, ...]:
    """Predictions in each of the 24 hours before now, the oldest first."""
    made = project.predictions.scan(start=now - _DAY, end=now + timedelta(microseconds=1)).select(
        hour=((pl.lit(now) - pl.col("at")).dt.total_seconds() // 3_600).clip(0, 23)
    )
    counts = dict(made.get_column("hour").value_counts().iter_rows())
    return tuple(counts.get(hour, 0) for hour in reversed(range(24)))


def _champion(project: Project, model: str, metric: str) -> Champion:
    deployment = attempt(lambda: project.deployments.current(model))
    if deployment is None or isinstance(deployment, Trouble):
        return Champion(model=model, metric=metric, deployment=None, score=None)
    manifest = attempt(lambda: read_manifest(deployment.folder(project.root))[0])
    score = None if isinstance(manifest, Trouble) else manifest.metrics.get(metric)
    return Champion(model=model, metric=metric, deployment=deployment, score=score)


def _findings(reports: ReportRepository, models: list[str]) -> tuple[dict[str, Any], ...]:
    newest = [attempt(lambda model=model: reports.newest("monitor", model)) for model in models]
    return tuple(
        item | {"model": report.subject, "version": report.body.get("drift", {}).get("version")}
        for report in newest
        if isinstance(report, StoredReport)
        for item in report.body.get("findings", [])
    )


def _steps(
    reports: ReportRepository, runs: list[Any], now: datetime, predictions: Any
) -> tuple[tuple[str, datetime | None], ...]:
    def made(kind: str) -> datetime | None:
        report = attempt(lambda: reports.newest(kind))
        return report.made_at if isinstance(report, StoredReport) else None

    done = [(run.kind, run.finished_at) for run in runs if run.state == "succeeded" and run.finished_at]
    extracted = max((at for kind, at in done if kind == "extract"), default=None)
    loaded = max((at for kind, at in done if kind not in ("extract", "retrain")), default=None)
    hours = () if isinstance(predictions, Trouble) else predictions
    last = next((hours_ago for hours_ago, number in enumerate(reversed(hours)) if number), None)
    return (
        *([("extract", extracted)] if extracted else []),  # many a project's files come by themselves
        ("materialize", loaded),
        ("train", made("training")),
        ("predict", None if last is None else now - timedelta(hours=last)),
        ("verify", made("parity")),
        ("monitor", made("monitor")),
        ("retrain", made("retrain")),
    )


def render(facts: OverviewFacts) -> Markup:
    lead = Markup("It is <strong>{}</strong> UTC{}").format(f"{facts.now:%A, %-d %B %Y, %H:%M}", _which_clock(facts))
    return page(
        facts.project,
        lead,
        tiles(*_tiles(facts)),
        _loop(facts),
        grid(_attention(facts), _health(facts)),
    )


def _which_clock(facts: OverviewFacts) -> Markup:
    if not facts.simulated:
        return Markup(".")
    return Markup(
        " on a simulated clock, which stands still until it is set. Back to the present: <code>{}</code>"
    ).format("tidemill clock release")


def _tiles(facts: OverviewFacts) -> list[Markup]:
    number = sum(facts.predictions)
    found = [_parity_tile(facts)]
    found += [_champion_tile(champion) for champion in facts.champions]
    picture = charts.sparkline(facts.predictions, label="Predictions in each of the last 24 hours")
    said = "in each hour, the last one right" if number else "none in this time"
    found.append(tile("Predictions, last 24 h", f"{number:,}", said, picture=picture))
    well = not facts.failed_runs
    found.append(
        tile(
            "Failed runs, last 24 h",
            f"{facts.failed_runs:,}",
            "nothing to do" if well else link("/runs", "why they failed"),
            tone=Tone.GOOD if well else Tone.BAD,
        )
    )
    return found


def _parity_tile(facts: OverviewFacts) -> Markup:
    if facts.parity is None:
        return tile("Parity", NOTHING, Markup("not checked yet: {}").format(code("tidemill verify")))
    body = facts.parity.body
    unexplained = body.get("differences", {}).get("unexplained", 0)
    compared, equal = body.get("compared", 0), body.get("equal", 0)
    if not compared:
        return tile(
            "Parity", NOTHING, f"nothing that was served could be compared, {ago(facts.parity.made_at, facts.now)}"
        )
    share = f"{equal / compared:.2%}"
    if equal < compared and share == "100.00%":
        share = "> 99.99%"
    detail = Markup("of {} recomputed from history are equal, {}; {}").format(
        count(compared, "served value"),
        link("/monitoring", f"{unexplained:,} unexplained"),
        ago(facts.parity.made_at, facts.now),
    )
    return tile("Parity", share, detail, tone=Tone.BAD if unexplained else Tone.GOOD)


def _champion_tile(champion: Champion) -> Markup:
    if champion.deployment is None:
        command = code(f"tidemill train {champion.model}")
        said = Markup("no champion yet: {}").format(command)
        return tile(f"Champion of {champion.model}", NOTHING, said, tone=Tone.WATCH)
    score = "" if champion.score is None else f"{metric_name(champion.metric)} {champion.score:.3f} when tested, "
    since = f"serves since {champion.deployment.changed_at:%-d %b %Y, %H:%M}"
    version = link("/models", f"version {champion.deployment.version}")
    return tile(f"Champion of {champion.model}", version, score + since, tone=Tone.GOOD)


def _loop(facts: OverviewFacts) -> Markup:
    stages = join(
        Markup("<li class='{}'><b>{}</b><span>{}</span></li>").format(
            "done" if at else "open", name, ago(at, facts.now, never="not yet")
        )
        for name, at in facts.steps
    )
    return Markup("<ol class='loop' aria-label='The loop: when each stage last happened'>{}</ol>").format(stages)


def _attention(facts: OverviewFacts) -> Markup:
    broken = join(finding("critical", part.name, part.text, "") for part in facts.parts if part.tone is Tone.BAD)
    serious = [item for item in facts.findings if item.get("severity") != "info"]
    if broken and not serious:
        body = EMPTY
    elif not facts.champions:
        body = empty("No model yet", "Monitoring looks at models; the definitions declare none.")
    elif not facts.findings:
        body = empty("Nothing found", "Monitoring has said nothing about any model so far.", "tidemill monitor")
    elif not serious:
        body = empty("All well", "The last look at every model found nothing to act on.")
    else:
        shown = (finding(item["severity"], item["subject"], item["what"], item["advice"]) for item in serious)
        body = _outdated(facts) + join(list(shown)[:_FINDINGS])
    more = link("/monitoring", f"all {len(serious)}, on Monitoring") if len(serious) > _FINDINGS else ""
    return card("Needs attention", broken + body, note=more)


def _outdated(facts: OverviewFacts) -> Markup:
    """Findings about a version that serves no more are told as such."""
    serving = {item.model: item.deployment.version for item in facts.champions if item.deployment}
    looked_at = {item["model"]: item["version"] for item in facts.findings}
    return join(
        replaced(model, looked_at[model], version)
        for model, version in serving.items()
        if looked_at.get(model) not in (None, version)
    )


def _health(facts: OverviewFacts) -> Markup:
    rows = [
        (dot(part.tone, "well" if part.tone is Tone.GOOD else "in trouble"), part.name, part.text)
        for part in facts.parts
    ]
    return card("Parts", table(("", "Part", "State"), rows, label="Health of the parts"))
