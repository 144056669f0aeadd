"""Feature views: what they hold, how fresh it is, what their last runs did; and the values of one entity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

from tidemill.definitions.catalog import Catalog, OnDemandView, View
from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.materialize.ledger import Run
from tidemill.monitor.freshness import Freshness, freshness
from tidemill.online.result import OnlineResult, Status
from tidemill.project import Project
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
    lasting,
    moment,
    named,
    page_head,
    table,
    trouble,
    value,
)
from tidemill_serving.dashboard.reading import Memory, Trouble, attempt
from tidemill_serving.rows import RowField, RowSchema, row_schema, row_schema_of_features

_RUNS = 24
_KINDS = {
    "plain": "The newest value of each entity is kept",
    "windowed": "Aggregated over windows that slide with time and with every event",
}
_HOW = {
    "pushed": "Written as events are pushed",
    "scheduled": "Loaded by the schedule",
    "on request": "Loaded when `tidemill materialize` is called",
}
_fresh: Memory[tuple[Freshness, ...]] = Memory(10)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TONES = {Status.PRESENT: Tone.GOOD, Status.NULL_VALUE: Tone.PLAIN, Status.OUTSIDE_MAX_AGE: Tone.WATCH}


@dataclass(frozen=True, kw_only=True)
class ViewFacts:
    """A view with its freshness (None where it is not kept online) and its last runs, newest first."""

    view: View
    fresh: Freshness | None
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class FeaturesFacts:
    now: datetime
    views: tuple[ViewFacts, ...]
    on_demand: tuple[OnDemandView, ...]
    trouble: str | None = None


def gather(project: Project) -> FeaturesFacts:
    now = project.clock.now()
    catalog = attempt(lambda: project.catalog)
    if isinstance(catalog, Trouble):
        return FeaturesFacts(now=now, views=(), on_demand=(), trouble=catalog.text)
    fresh = attempt(lambda: _fresh.recall((project.root, now.replace(second=0)), lambda: freshness(project, at=now)))
    states = {} if isinstance(fresh, Trouble) else {state.view: state for state in fresh}
    return FeaturesFacts(
        now=now,
        views=tuple(
            ViewFacts(view=view, fresh=states.get(view.name), runs=tuple(project.ledger.runs(view.name, limit=_RUNS)))
            for view in catalog.views
        ),
        on_demand=catalog.on_demand_views,
        trouble=fresh.text if isinstance(fresh, Trouble) else None,
    )


def questions(catalog: Catalog) -> dict[str, RowSchema]:
    """What can be looked up: each service, then each view that is kept online, with the fields a row needs."""
    found = {f"service {service.name}": row_schema(catalog, service) for service in catalog.services}
    for view in catalog.views:
        if view.online and view.features:
            found[f"view {view.name}"] = row_schema_of_features(catalog, _references(view))
    return found


def look_up(project: Project, question: str, texts: Mapping[str, str]) -> OnlineResult:
    """The newest values for one entity. Raises InputError for text that is not of its field's type."""
    kind, _, name = question.partition(" ")
    schema = questions(project.catalog)[question]
    if texts and not any(text.strip() for text in texts.values()):
        raise InputError("Nothing is filled in.", hint="Name the entity: its keys, and what comes with a request.")
    row = schema.check([{field.name: _typed(field, texts.get(field.name, "")) for field in schema.fields}], limit=1)
    if kind == "service":
        return project.online.read(name, row)
    return project.online.read_features(_references(project.catalog.view(name)), row)


def expected(dtype: ValueType) -> str:
    """What is to be typed for a value of this type, in words."""
    if dtype.is_numeric:
        return "a whole number" if dtype.is_integer else "a number"
    return {ValueType.BOOL: "true or false", ValueType.UNIX_TIMESTAMP: "2024-05-31T13:00:00Z"}.get(dtype, "text")


def _references(view: View) -> list[str]:
    return [f"{view.name}:{feature.name}" for feature in view.features]


def _typed(field: RowField, text: str) -> Any:
    """What was typed into a form, as JSON would have brought it. Nothing typed is null."""
    text = text.strip()
    if not text:
        return None
    try:
        if field.dtype.is_integer:
            return int(text.replace(",", ""))
        if field.dtype.is_numeric:
            return float(text)
        if field.dtype is ValueType.BOOL:
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        raise InputError(f"{field.name}: {text!r} is not {expected(field.dtype)}.") from None
    return text


def render_head() -> Markup:
    return page_head(
        "Features", "What every view holds, how fresh it is, what its last runs did, and its newest values."
    )


def render(facts: FeaturesFacts) -> Markup:
    if not facts.views:
        return empty("No feature views yet", facts.trouble or "Declare one and apply it.", "tidemill apply")
    problem = trouble(facts.trouble) if facts.trouble else EMPTY
    cards = [_view_card(view, facts.now) for view in facts.views]
    cards += [_on_demand_card(view) for view in facts.on_demand]
    return join([problem, grid(*cards)])


def render_result(result: OnlineResult) -> Markup:
    """The values that were looked up, each with its status and age."""
    rows = []
    for name in result.names:
        status, event = result.statuses[name][0], result.event_times[name][0]
        stale = chip("stale", Tone.WATCH) if result.stale[name][0] else EMPTY
        age = NOTHING if event is None else lasting((result.at - event) / 1e6)
        exact = "" if event is None else f"{_EPOCH + timedelta(microseconds=event):%Y-%m-%d %H:%M:%S} UTC"
        rows.append(
            (
                named(name),
                value(result.values[name][0]),
                chip(Status(status).name, _TONES.get(Status(status), Tone.BAD)) + stale,
                Markup("<span title='{}'>{}</span>").format(exact, age),
            )
        )
    return table(("Feature", "Value", "Status", "Age"), rows, numbers=(1, 3), label="Newest values")


def _view_card(facts: ViewFacts, now: datetime) -> Markup:
    view = facts.view
    kind = _explained(_KINDS, "windowed" if view.is_windowed else "plain")
    how = _explained(_HOW, "pushed" if view.is_pushed else "scheduled" if view.schedule else "on request")
    return card(
        view.name,
        Markup("<p class='soft'>{}</p>").format(view.description) if view.description else EMPTY,
        _freshness_bar(facts.fresh),
        definitions(_about(view, facts.fresh, now)),
        _run_strip(facts.runs),
        _feature_list([(feature.name, feature.dtype) for feature in view.features]),
        note=join([kind, how]),
    )


def _explained(meanings: Mapping[str, str], word: str) -> Markup:
    return chip(word, title=meanings[word])


def _about(view: View, fresh: Freshness | None, now: datetime) -> list[tuple[Markup | str, Markup | str]]:
    schedule = view.schedule
    about: list[tuple[Markup | str, Markup | str]] = [
        ("keys", code(", ".join(view.join_keys) or "none")),
        ("valid for", f"{lasting(view.ttl)} after the event (ttl)" if view.ttl else "any age (no ttl)"),
    ]
    if schedule is not None:
        clock = Markup("{} <span class='soft'>{}</span>").format(code(schedule.cron or ""), schedule.timezone)
        about.append(("schedule", clock if schedule.cron else f"every {lasting(schedule.every)}"))
    if fresh is not None:
        about.append(
            ("newest event", Markup("{}, {}").format(moment(fresh.newest_event), ago(fresh.newest_event, now)))
        )
        if not view.is_pushed:
            about.append(("loaded up to", moment(fresh.cutoff)))
    return about


def _freshness_bar(fresh: Freshness | None) -> Markup:
    """The age of the newest value against what was promised."""
    if fresh is None or fresh.max_age is None:
        return EMPTY
    if fresh.age is None:
        return Markup("<p class='gauge-text'>{}</p>").format(chip("no value yet", Tone.WATCH))
    used = fresh.age / fresh.max_age
    tone = Tone.BAD if used > 1 else Tone.WATCH if used > 0.8 else Tone.GOOD
    said = f"{lasting(fresh.age)} old, at most {lasting(fresh.max_age)} promised"
    return Markup(
        "<div class='gauge' role='img' aria-label='{said}'><b class='{}' style='width:{:.1f}%'></b></div>"
        "<p class='gauge-text'>{said}</p>"
    ).format(tone.value, min(used, 1) * 100, said=said)


def _run_strip(runs: tuple[Run, ...]) -> Markup:
    if not runs:
        return EMPTY
    tones = {"succeeded": Tone.GOOD, "failed": Tone.BAD}
    cells = join(
        Markup("<i class='{}' title='{}'></i>").format(
            tones.get(run.state, Tone.WATCH).value,
            f"{run.state}, up to {run.end:%Y-%m-%d %H:%M} UTC, {count(run.rows_written, 'row')}",
        )
        for run in reversed(runs)
    )
    failed = sum(run.state == "failed" for run in runs)
    said = f"{'the last ' * (len(runs) == _RUNS)}{count(len(runs), 'run')}, {failed or 'none'} failed"
    return Markup("<div class='strip' role='img' aria-label='{0}'>{1}<span>{0}</span></div>").format(said, cells)


def _feature_list(features: list[tuple[str, ValueType]]) -> Markup:
    items = join(
        Markup("<li><code>{}</code> <span class='soft'>{}</span></li>").format(name, dtype.name.lower())
        for name, dtype in features
    )
    return Markup("<details><summary>{}</summary><ul class='features'>{}</ul></details>").format(
        count(len(features), "feature"), items
    )


def _on_demand_card(view: OnDemandView) -> Markup:
    needs = [field.name for field in view.request] + [f"{item.view}:{item.feature}" for item in view.inputs]
    return card(
        view.name,
        Markup("<p class='soft'>{}</p>").format(view.description) if view.description else EMPTY,
        definitions([("computed from", code(", ".join(needs) or "nothing")), ("by", code(view.function.qualname))]),
        _feature_list([(feature.name, feature.dtype) for feature in view.features]),
        note=chip("at request time"),
    )
