"""Monitoring: parity by feature, drift, performance over time, predictions against what came true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from markupsafe import Markup

from tidemill.metadata.reports import ReportRepository, StoredReport
from tidemill.monitor.drift import DRIFTED_PSI, WATCH_PSI
from tidemill.monitor.labels import labelled_predictions
from tidemill.project import Project
from tidemill_serving.dashboard import charts
from tidemill_serving.dashboard.charts import Bar, Line, Share
from tidemill_serving.dashboard.markup import (
    EMPTY,
    NOTHING,
    Part,
    Tone,
    ago,
    card,
    chip,
    count,
    empty,
    finding,
    folded,
    grid,
    join,
    metric_name,
    named,
    page,
    replaced,
    stack,
    table,
    trouble,
)
from tidemill_serving.dashboard.reading import Memory, Trouble, attempt

WINDOW = timedelta(days=7)
_BINS = 10
_MOST_FEATURES = 24
_FINDINGS = 6
_PSI_SHOWN = 1.0
_PSI = (
    "The population stability index (PSI) is 0 where nothing moved; from 0.1 on keep an eye on it, from 0.2 on it is "
    "another population (the dashed lines). Bars end at 1."
)
_EXPLAINED = ("written_during_run", "late_data", "ttl", "type", "definition_changed")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Predictions in one range of scores: their mean, how many there are, how many labels are known, the share true."""

    predicted: float
    made: int
    labelled: int
    observed: float | None


_answers: Memory[tuple[Answered, ...]] = Memory(30)


@dataclass(frozen=True, kw_only=True)
class MonitoringFacts:
    """What checks said about a model. `history` are its monitor reports, oldest first."""

    now: datetime
    models: tuple[str, ...]
    model: str | None
    metrics: tuple[str, ...] = ()
    champion: int | None = None
    parity: StoredReport | None = None
    history: tuple[StoredReport, ...] = ()
    answered: tuple[Answered, ...] = ()
    trouble: str | None = None

    @property
    def newest(self) -> StoredReport | None:
        return self.history[-1] if self.history else None


def gather(project: Project, model: str | None = None) -> MonitoringFacts:
    """What is known about a model, by default the first one declared."""
    now, catalog = project.clock.now(), attempt(lambda: project.catalog)
    if isinstance(catalog, Trouble):
        return MonitoringFacts(now=now, models=(), model=None, trouble=catalog.text)
    names = tuple(item.name for item in catalog.models)
    chosen = model if model in names else next(iter(names), None)
    if chosen is None:
        return MonitoringFacts(now=now, models=(), model=None)
    reports = ReportRepository(project.database, project.name)
    key = (project.root, chosen, now.replace(second=0))
    answered = attempt(lambda: _answers.recall(key, lambda: _answered(project, chosen, now)))
    parity = reports.newest("parity", chosen) or reports.newest("parity", project.name)
    return MonitoringFacts(
        now=now,
        models=names,
        model=chosen,
        metrics=catalog.model(chosen).metrics,
        champion=_champion(project, chosen),
        parity=parity,
        history=tuple(reversed(reports.list("monitor", chosen, limit=100))),
        answered=() if isinstance(answered, Trouble) else answered,
        trouble=answered.text if isinstance(answered, Trouble) else None,
    )


def _champion(project: Project, model: str) -> int | None:
    deployment = attempt(lambda: project.deployments.current(model))
    return None if deployment is None or isinstance(deployment, Trouble) else deployment.version


def _answered(project: Project, model: str, now: datetime) -> tuple[Answered, ...]:
    """The last week's predictions by score, in ten equal ranges, with the outcomes known by now."""
    rows = labelled_predictions(project, model, at=now, start=now - WINDOW, end=now)
    known = pl.col("label").is_not_null()
    bins = (
        rows.with_columns(bin=(pl.col("prediction") * _BINS).floor().clip(0, _BINS - 1))
        .group_by("bin")
        .agg(
            predicted=pl.col("prediction").mean(),
            made=pl.len(),
            labelled=known.sum(),
            observed=pl.col("label").mean(),
        )
        .sort("bin")
    )
    return tuple(
        Answered(predicted=row["predicted"], made=row["made"], labelled=row["labelled"], observed=row["observed"])
        for row in bins.iter_rows(named=True)
    )


def render(facts: MonitoringFacts) -> Markup:
    lead = "Whether what is served is what was trained on, and whether the world still is."
    if facts.model is None:
        return page(
            "Monitoring",
            lead,
            empty(
                "No models yet",
                facts.trouble or "The definitions declare none. Declare a Model, then:",
                "tidemill apply",
            ),
        )
    said = trouble(facts.trouble) if facts.trouble else EMPTY
    return page(
        "Monitoring",
        lead,
        _choice(facts),
        said,
        _outdated(facts),
        _findings(facts),
        _parity(facts),
        grid(_drift(facts), stack(_performance(facts), _labels(facts))),
    )


def _choice(facts: MonitoringFacts) -> Markup:
    """Links between models where there are several."""
    if len(facts.models) < 2:
        return EMPTY
    links = join(
        Markup("<a class='{}' href='?model={}'>{}</a>").format("here" if name == facts.model else "", name, name)
        for name in facts.models
    )
    return Markup("<nav class='tabs' aria-label='Models'>{}</nav>").format(links)


def _outdated(facts: MonitoringFacts) -> Markup:
    """Findings and drift are about the champion of their time."""
    looked_at = facts.newest.body.get("drift", {}).get("version") if facts.newest else None
    if facts.model is None or facts.champion is None or looked_at in (None, facts.champion):
        return EMPTY
    return replaced(facts.model, looked_at, facts.champion)


def _findings(facts: MonitoringFacts) -> Markup:
    newest = facts.newest
    if newest is None:
        return EMPTY
    found: list[dict[str, Any]] = newest.body.get("findings", [])
    if not found:
        return card("Findings", empty("All well", "The last look found nothing to act on."), wide=True)
    items = [finding(item["severity"], item["subject"], item["what"], item["advice"]) for item in found]
    body = folded(items, _FINDINGS, "findings")
    return card("Findings", body, note=f"looked {ago(newest.made_at, facts.now)}", wide=True)


def _parity(facts: MonitoringFacts) -> Markup:
    if facts.parity is None:
        why = "Parity recomputes every value that was served and compares."
        return card("Parity", empty("Not checked yet", why, "tidemill verify"), wide=True)
    body = facts.parity.body
    features = sorted(
        body.get("features", []), key=lambda item: (-item["unexplained"], item["equal"] / max(item["compared"], 1))
    )
    rows = [
        (
            named(item["feature"]),
            charts.stacked(_outcomes(item), label=f"Outcomes of {item['feature']}"),
            f"{item['compared']:,}",
            f"{item['equal'] / item['compared']:.2%}" if item["compared"] else NOTHING,
            _unexplained(item["unexplained"]),
        )
        for item in features
    ]
    heads = ("Feature", Markup("<span class='hidden'>Outcomes</span>"), "Compared", "Equal", "Unexplained")
    differences = body.get("differences", {})
    summary = Markup("<p class='summary'>{} {} of {} recomputed from history and compared. {}</p>").format(
        _unexplained(differences.get("unexplained", 0), word=" unexplained"),
        count(body.get("compared", 0), "value"),
        count(body.get("predictions", 0), "prediction"),
        _reasons(differences),
    )
    notes = join(Markup("<p class='soft'>{}</p>").format(note) for note in body.get("notes", []))
    differing = sum(item["equal"] < item["compared"] for item in features)
    shown = _differing(heads, rows[:differing]) + _all_equal(heads, rows[differing:], every=not differing)
    return card("Parity", summary, shown, notes, note=f"checked {ago(facts.parity.made_at, facts.now)}", wide=True)


def _differing(heads: Sequence[Part], rows: Sequence[Sequence[Part]]) -> Markup:
    return table(heads, rows, numbers=(2, 3, 4), label="Parity of features that differ") if rows else EMPTY


def _all_equal(heads: Sequence[Part], rows: Sequence[Sequence[Part]], *, every: bool) -> Markup:
    """Features without a difference need no room until somebody asks for them."""
    if not rows:
        return EMPTY
    which = f"{'All' if every else 'The other'} {count(len(rows), 'feature')}: every value equal"
    body = table(heads, rows, numbers=(2, 3, 4), label="Parity of features that are equal")
    return Markup("<details class='more'><summary>{}</summary>{}</details>").format(which, body)


def _outcomes(item: dict[str, Any]) -> list[Share]:
    explained = sum(item.get(name, 0) for name in _EXPLAINED)
    return [
        Share(what="equal", amount=item["equal"], tone=Tone.GOOD),
        Share(what="explained", amount=explained, tone=Tone.WATCH),
        Share(what="unexplained", amount=item["unexplained"], tone=Tone.BAD),
    ]


def _unexplained(number: int, *, word: str = "") -> Markup:
    return chip(f"{number:,}{word}", Tone.BAD if number else Tone.GOOD)


def _reasons(differences: dict[str, int]) -> str:
    found = [
        f"{number:,} {name.replace('_', ' ')}" for name, number in differences.items() if number and name in _EXPLAINED
    ]
    return f"Explained: {', '.join(found)}." if found else ""


def _drift(facts: MonitoringFacts) -> Markup:
    found = facts.newest.body.get("drift", {}) if facts.newest else {}
    features: list[dict[str, Any]] = found.get("features", [])
    if not features:
        why = "Drift compares what was served with what the champion learned from."
        return card("Drift", empty("Nothing to compare yet", why, f"tidemill monitor {facts.model}"))
    prediction = [found["prediction"] | {"name": "predictions"}] if found.get("prediction") else []
    shown = [*prediction, *features[:_MOST_FEATURES]]
    top = min(max(0.3, *(item["psi"] for item in shown)), _PSI_SHOWN)
    marks = [(WATCH_PSI, "0.1: keep an eye on it"), (DRIFTED_PSI, "0.2: another population")]
    left_out = f"; {len(features) - _MOST_FEATURES} that moved less are not shown" * (len(features) > _MOST_FEATURES)
    note = f"{count(found.get('rows', 0), 'prediction')} against version {found.get('version')}'s training{left_out}"
    drawn = charts.bars([_drift_bar(item) for item in shown], top=top, marks=marks, label="PSI by feature")
    return card("Drift", Markup("<p class='note'>{}</p>").format(_PSI), drawn, note=note)


def _drift_bar(item: dict[str, Any]) -> Bar:
    tone = {"drifted": Tone.BAD, "watch": Tone.WATCH, "stable": Tone.GOOD}.get(item["verdict"], Tone.PLAIN)
    return Bar(
        label=named(item["name"]),
        amount=item["psi"],
        text=f"{item['psi']:.3f}",
        tone=tone,
        title=f"{item['verdict']}; {item['moved']}; chance alone gives up to {item['chance']:.3f}",
    )


def _performance(facts: MonitoringFacts) -> Markup:
    lines = [_metric_line(facts.history, metric) for metric in facts.metrics]
    drawn = [line for line in lines if any(item is not None for _, item in line.points)]
    if not drawn:
        why = "Metrics follow once outcomes of predictions are known."
        return card("Performance", empty("No outcome is known yet", why, f"tidemill monitor {facts.model}"))
    newest = _versions(facts.newest)
    rows = [
        (
            f"{item['version']}",
            f"{item['labelled']:,}",
            *(_against(item["metrics"].get(metric), item["trained"].get(metric)) for metric in facts.metrics),
        )
        for item in newest
    ]
    heads = ("Version", "Outcomes", *map(metric_name, facts.metrics))
    numbers = tuple(range(len(heads)))
    shown = table(heads, rows, numbers=numbers, label="Performance by version, with the test metrics in training")
    many = len({at for line in drawn for at, item in line.points if item is not None}) > 1
    plot = charts.curves(drawn, label="Metrics over time, by report") if many else EMPTY
    return card("Performance", plot, shown, note="live; below it, when tested in training")


def _metric_line(history: Iterable[StoredReport], metric: str) -> Line:
    """The metric of each report's newest version that has one."""
    points = []
    for report in history:
        found = [item["metrics"].get(metric) for item in _versions(report)]
        points.append((report.made_at, next((value for value in found if value is not None), None)))
    return Line(name=metric_name(metric), points=points)


def _versions(report: StoredReport | None) -> list[dict[str, Any]]:
    return report.body.get("performance", {}).get("versions", []) if report else []


def _against(now: float | None, trained: float | None) -> Markup:
    then = "" if trained is None else f"{trained:.3f}"
    return Markup("{}<br><span class='soft'>{}</span>").format(NOTHING if now is None else f"{now:.3f}", then)


def _labels(facts: MonitoringFacts) -> Markup:
    if not facts.answered:
        return card(
            "Predictions and outcomes", empty("Nothing predicted in the last 7 days", "Ask for a prediction over HTTP.")
        )
    bins = [(item.predicted, item.observed, item.labelled) for item in facts.answered if item.observed is not None]
    made = sum(item.made for item in facts.answered)
    known = sum(item.labelled for item in facts.answered)
    plot = charts.reliability(bins, label="Predicted probability against the share that came true")
    if not bins:
        plot = empty("No outcome is known yet", "The plot follows as outcomes are extracted.")
    most = max(item.made for item in facts.answered)
    spread = Markup("<h3>How many predictions there were</h3>") + charts.bars(
        [Bar(label=f"around {item.predicted:.0%}", amount=item.made, text=f"{item.made:,}") for item in facts.answered],
        top=most,
        label="Predictions by score",
    )
    note = f"{count(made, 'prediction')} in 7 days, {known:,} with their outcome"
    return card("Predictions and outcomes", plot, spread, note=note)
