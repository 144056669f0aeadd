"""The ledger: what ran when, what it wrote, and why it failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from tidemill.extract import Quarantine
from tidemill.materialize.ledger import Run
from tidemill.project import Project
from tidemill_serving.dashboard import charts
from tidemill_serving.dashboard.charts import Span
from tidemill_serving.dashboard.markup import (
    EMPTY,
    Tone,
    card,
    chip,
    count,
    empty,
    lasting,
    moment,
    page,
    table,
    trouble,
)
from tidemill_serving.dashboard.reading import Trouble, attempt

_SHOWN = 200
_LISTED = 60
_TONES = {"succeeded": Tone.GOOD, "failed": Tone.BAD}


@dataclass(frozen=True, kw_only=True)
class RunsFacts:
    """The newest runs first, and what waits in quarantine: source, reason, rows."""

    now: datetime
    runs: tuple[Run, ...]
    quarantined: tuple[tuple[str, str, int], ...] = ()
    trouble: str | None = None


def gather(project: Project) -> RunsFacts:
    now = project.clock.now()
    runs = attempt(lambda: project.ledger.runs(limit=_SHOWN))
    quarantine = Quarantine(project.state)
    sources = sorted({file.parent.name for file in quarantine.files()})
    return RunsFacts(
        now=now,
        runs=() if isinstance(runs, Trouble) else tuple(runs),
        quarantined=tuple((name, reason, rows) for name in sources for reason, rows in quarantine.reasons(name)),
        trouble=runs.text if isinstance(runs, Trouble) else None,
    )


def render(facts: RunsFacts) -> Markup:
    lead = "Every interval of work in exactly one row: what it covered, what it wrote, why it failed."
    said = trouble(facts.trouble) if facts.trouble else EMPTY
    if not facts.runs and not facts.trouble:
        body = empty("Nothing has run yet", "Work appears here as soon as it is claimed.", "tidemill materialize")
        return page("Runs", lead, body, _quarantine(facts))
    return page("Runs", lead, said, _timeline(facts), _quarantine(facts), _list(facts))


def _timeline(facts: RunsFacts) -> Markup:
    if not facts.runs:
        return EMPTY
    spans = [
        Span(
            lane=run.view,
            start=run.started_at,
            end=run.finished_at or facts.now,
            tone=_TONES.get(run.state, Tone.WATCH),
            title=f"{run.view}: {run.state}, {lasting(run.seconds)}, {run.rows_written:,} rows",
        )
        for run in reversed(facts.runs)
    ]
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    plot = charts.timeline(spans, start=start, end=end, label="When each view's runs were under way")
    return card("Timeline", plot, note=f"the last {count(len(spans), 'run')}", wide=True)


def _quarantine(facts: RunsFacts) -> Markup:
    if not facts.quarantined:
        return EMPTY
    rows = [(name, reason, f"{number:,}") for name, reason, number in facts.quarantined]
    shown = table(("Source", "What is wrong", "Rows"), rows, numbers=(2,), label="Rows in quarantine")
    return card("In quarantine", shown, note="rows that broke their source's contract", wide=True)


def _list(facts: RunsFacts) -> Markup:
    rows = [
        (
            run.view,
            chip(run.state, _TONES.get(run.state, Tone.WATCH)),
            Markup("{} → {}").format(moment(run.start, never="the beginning"), moment(run.end)),
            f"{run.rows_written:,}",
            f"{run.rows_skipped:,}",
            lasting(run.seconds),
            _remarks(run),
        )
        for run in facts.runs[:_LISTED]
    ]
    heads = ("Work", "State", "Interval", "Written", "Skipped", "Took", "Remarks")
    shown = table(heads, rows, numbers=(3, 4, 5), label="The newest runs")
    return card("Newest runs", shown, note=f"{min(len(facts.runs), _LISTED)} of the ledger's rows", wide=True)


def _remarks(run: Run) -> Markup:
    attempt_text = f"attempt {run.attempt}" if run.attempt > 1 else ""
    if run.error:
        return Markup("<details class='error'><summary>{}</summary><p>{}</p></details>").format(
            attempt_text or "why", run.error
        )
    return Markup("<span class='soft'>{}</span>").format(" · ".join(filter(None, (run.kind, attempt_text))))
