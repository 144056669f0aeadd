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
    interval,
    lasting,
    named,
    page,
    table,
    trouble,
)
from tidemill_serving.dashboard.reading import Trouble, attempt

_SHOWN = 200
_LISTED = 60
_FAILED = 20
_TONES = {"succeeded": Tone.GOOD, "failed": Tone.BAD}
_STATES = {"claimed": "at work"}


@dataclass(frozen=True, kw_only=True)
class RunsFacts:
    """The newest runs first, the newest that failed, and what waits in quarantine: source, reason, rows."""

    now: datetime
    runs: tuple[Run, ...]
    failed: tuple[Run, ...] = ()
    quarantined: tuple[tuple[str, str, int], ...] = ()
    trouble: str | None = None


def gather(project: Project) -> RunsFacts:
    now = project.clock.now()
    runs = attempt(lambda: project.ledger.runs(limit=_SHOWN))
    failed = attempt(lambda: project.ledger.runs(state="failed", limit=_FAILED))
    faults = attempt(Quarantine(project.state).faults)
    return RunsFacts(
        now=now,
        runs=() if isinstance(runs, Trouble) else tuple(runs),
        failed=() if isinstance(failed, Trouble) else tuple(failed),
        quarantined=() if isinstance(faults, Trouble) else tuple((it.source, it.reason, it.rows) for it in faults),
        trouble=next((found.text for found in (runs, faults) if isinstance(found, Trouble)), None),
    )


def render(facts: RunsFacts) -> Markup:
    lead = "Every interval of work in exactly one row: what it covered, what it wrote, why it failed."
    said = trouble(facts.trouble) if facts.trouble else EMPTY
    if not facts.runs and not facts.trouble:
        body = empty("Nothing has run yet", "Work appears here as soon as it is claimed.", "tidemill materialize")
        return page("Runs", lead, body, _quarantine(facts))
    return page("Runs", lead, said, _timeline(facts), _failed(facts), _quarantine(facts), _newest(facts))


def _timeline(facts: RunsFacts) -> Markup:
    if not facts.runs:
        return EMPTY
    spans = [
        Span(
            lane=run.view,
            start=run.started_at,
            end=run.finished_at or facts.now,
            tone=_TONES.get(run.state, Tone.WATCH),
            title=(
                f"{run.view}: {_STATES.get(run.state, run.state)}, {run.started_at:%-d %b %H:%M} UTC, "
                f"took {lasting(run.seconds)}, {count(run.rows_written, 'row')}"
            ),
        )
        for run in reversed(facts.runs)
    ]
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    plot = charts.timeline(spans, start=start, end=end, label="When each view's runs were under way")
    return card("Timeline", plot, note=f"the last {count(len(spans), 'run')}, by the time they started", wide=True)


def _quarantine(facts: RunsFacts) -> Markup:
    if not facts.quarantined:
        return EMPTY
    rows = [(name, reason, f"{number:,}") for name, reason, number in facts.quarantined]
    shown = table(("Source", "What is wrong", "Rows"), rows, numbers=(2,), label="Rows in quarantine")
    return card("In quarantine", shown, note="rows that broke their source's contract", wide=True)


def _failed(facts: RunsFacts) -> Markup:
    """Failures stay in sight, however much has run since."""
    if not facts.failed:
        return EMPTY
    note = f"the newest {_FAILED}; older ones: tidemill runs --state failed" if len(facts.failed) == _FAILED else ""
    return card("Failed", _listed(facts.failed, label="Runs that failed"), note=note, wide=True)


def _newest(facts: RunsFacts) -> Markup:
    shown = facts.runs[:_LISTED]
    note = f"the newest {count(len(shown), 'run')}; one in full: tidemill runs --explain ID"
    return card("Newest runs", _listed(shown, label="The newest runs"), note=note, wide=True)


def _listed(runs: tuple[Run, ...], *, label: str) -> Markup:
    rows = [
        (
            f"{run.id}",
            named(run.view),
            chip(_STATES.get(run.state, run.state), _TONES.get(run.state, Tone.WATCH)),
            interval(run.start, run.end),
            f"{run.rows_written:,}",
            f"{run.rows_skipped:,}",
            lasting(run.seconds),
            _remarks(run),
        )
        for run in runs
    ]
    heads = ("ID", "Work", "State", "Interval", "Rows written", "Skipped", "Took", "Remarks")
    return table(heads, rows, numbers=(0, 4, 5, 6), label=label)


def _remarks(run: Run) -> Markup:
    attempt_text = f"attempt {run.attempt}" if run.attempt > 1 else ""
    if run.error:
        return Markup("<details class='error'><summary>{}</summary><p>{}</p></details>").format(
            ", ".join(filter(None, (attempt_text, "why it failed"))), run.error
        )
    return Markup("<span class='soft'>{}</span>").format(" · ".join(filter(None, (run.kind, attempt_text))))
