"""What users write beside their Feast objects: schedules and freshness as tags, spines, labels and models.

Nothing here imports Feast; Feast objects are only looked at by name, so that a module of declarations costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tidemill.definitions.duration import format_duration, parse_duration

TAG_PREFIX = "tidemill."


def tags(
    *,
    schedule: str | None = None,
    every: str | timedelta | None = None,
    timezone: str = "UTC",
    lag: str | timedelta = "0s",
    catch_up: str = "latest",
    jitter: str | timedelta = "0s",
    attempts: int = 5,
    timeout: str | timedelta | None = None,
    max_age: str | timedelta | None = None,
    when_stale: str = "serve",
    event_id: str | None = None,
    **others: str,
) -> dict[str, str]:
    """Tags for a Feast view or source that say how Tidemill keeps it.

    Args:
        schedule: a cron expression of five fields, read in `timezone`, e.g. `"5 * * * *"`.
        every: a fixed interval instead, counted from 1970-01-01 UTC, e.g. `"15m"`.
        lag: how long after its tick a run has usually finished.
        catch_up: of ticks missed while nothing ran, run the `latest`, `all` of them, or `skip` them.
        jitter: start up to this much after the tick, so that not everything starts at once.
        attempts: how often a run is tried before it is left for you to look at; waits grow from 30 s to an hour.
        timeout: give a run up after this long.
        max_age: the freshness objective; a read of an older value says so.
        when_stale: `serve`, `null` or `refuse` a value older than `max_age`.
        event_id: the column that names an event, so that a retried delivery counts once.
        others: any further tags of your own.
    """
    found: dict[str, str | None] = {
        "schedule": schedule,
        "every": None if every is None else format_duration(parse_duration(every)),
        "timezone": timezone if schedule or timezone != "UTC" else None,
        "lag": format_duration(parse_duration(lag)) if schedule or every or parse_duration(lag) else None,
        "catch_up": catch_up if catch_up != "latest" else None,
        "jitter": format_duration(parse_duration(jitter)) if parse_duration(jitter) else None,
        "attempts": str(attempts) if attempts != 5 else None,
        "timeout": None if timeout is None else format_duration(parse_duration(timeout)),
        "max_age": None if max_age is None else format_duration(parse_duration(max_age)),
        "when_stale": when_stale if max_age is not None or when_stale != "serve" else None,
        "event_id": event_id,
    }
    return {TAG_PREFIX + name: text for name, text in found.items() if text is not None} | others


@dataclass(frozen=True, kw_only=True)
class Spine:
    """Who is asked about, and when. See `tidemill.definitions.catalog.SpineDefinition`.

    `source` is a Feast FileSource (or its name); `time` the column of the request time, `id` the column naming the
    row; `keys` the join keys (a sequence, or a mapping from join key to column); `request` the request columns.
    """

    source: Any
    time: str
    id: str
    keys: Sequence[str] | Mapping[str, str]
    request: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is predicted: `column` of `source`, joined to the spine by `id`, known at the source's known time."""

    source: Any
    column: str
    id: str


@dataclass(frozen=True, kw_only=True)
class LastPart:
    """Split by time: test on the last part, validate on the part before it."""

    test: str | timedelta
    validation: str | timedelta = "0s"


@dataclass(frozen=True)
class AtLeast:
    metric: str
    value: float


@dataclass(frozen=True)
class AtMost:
    metric: str
    value: float


@dataclass(frozen=True)
class NotWorseThanChampion:
    metric: str
    by: float = 0.0


@dataclass(frozen=True)
class OnSchedule:
    cron: str
    timezone: str = "UTC"


@dataclass(frozen=True)
class OnDrift:
    psi: float


@dataclass(frozen=True)
class OnPerformance:
    metric: str
    drop: float


@dataclass(frozen=True)
class OnNewData:
    rows: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model, declared beside the features it reads.

    `estimator` is a function without arguments that returns a scikit-learn estimator, defined at the top level of a
    module that does not import Feast. `features` is a Feast FeatureService or its name.
    """

    name: str
    features: Any
    spine: Spine
    label: Label
    estimator: Callable[[], Any]
    split: LastPart
    metrics: Sequence[str] = ("roc_auc", "average_precision", "log_loss", "brier")
    gates: Sequence[AtLeast | AtMost | NotWorseThanChampion] = ()
    retrain: Sequence[OnSchedule | OnDrift | OnPerformance | OnNewData] = ()
    seed: int = 0
    description: str = ""
