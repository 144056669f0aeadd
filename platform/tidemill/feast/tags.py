"""What `tidemill.tags(...)` wrote beside a Feast object, read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from tidemill.definitions.catalog import CatchUp, Freshness, Schedule, StalePolicy
from tidemill.definitions.declare import TAG_PREFIX
from tidemill.definitions.duration import parse_duration
from tidemill.errors import DefinitionError, NotDefinedError, TidemillError
from tidemill.schedule.ticks import check_schedule

if TYPE_CHECKING:
    from feast import FeatureView

_SCHEDULE = ("schedule", "every", "timezone", "lag", "catch_up", "jitter", "attempts", "timeout")
_KNOWN = (*_SCHEDULE, "max_age", "when_stale", "event_id")


def schedule_of(tags: Mapping[str, str], place: str) -> Schedule | None:
    """When the tagged object is brought up to date; None where the tags do not say. Raises DefinitionError."""
    found = _ours(tags, place)
    if "schedule" not in found and "every" not in found:
        _refuse_orphans(found, [name for name in _SCHEDULE if name in found], 'schedule="5 * * * *"', place)
        return None
    with _found_in(place):
        schedule = Schedule(
            cron=found.get("schedule"),
            every=parse_duration(found["every"]) if "every" in found else None,
            timezone=found.get("timezone", "UTC"),
            lag=parse_duration(found.get("lag", "0s")),
            catch_up=_catch_up(found.get("catch_up", CatchUp.LATEST)),
            jitter=parse_duration(found.get("jitter", "0s")),
            attempts=_attempts(found.get("attempts", "5")),
            timeout=parse_duration(found["timeout"]) if "timeout" in found else None,
        )
        check_schedule(schedule)
    return schedule


def freshness_of(tags: Mapping[str, str], place: str) -> Freshness | None:
    found = _ours(tags, place)
    if "max_age" not in found:
        _refuse_orphans(found, [name for name in ("when_stale",) if name in found], 'max_age="1h"', place)
        return None
    policy = found.get("when_stale", "serve")
    if policy not in list(StalePolicy):
        known = [item.value for item in StalePolicy]
        raise DefinitionError(f"In the {place}: {NotDefinedError('policy for stale values', policy, known)}")
    with _found_in(place):
        max_age = parse_duration(found["max_age"])
        if max_age <= timedelta(0):
            raise DefinitionError(f"Every value would be older than max_age={found['max_age']!r}.")
        return Freshness(max_age=max_age, policy=StalePolicy(policy))


def event_id_of(view: FeatureView) -> str | None:
    """The column that names an event: a tag of the view, of its stream, or of the source behind it."""
    for tagged in (view, view.stream_source, view.batch_source):
        name = (tagged.tags if tagged is not None else {}).get(TAG_PREFIX + "event_id")
        if name:
            return name
    return None


def _refuse_orphans(found: Mapping[str, str], names: Sequence[str], without: str, place: str) -> None:
    """Tags that say how something is done which no tag says is done at all would be passed over silently."""
    if names:
        said = ", ".join(f"{name}={found[name]!r}" for name in names)
        raise DefinitionError(f"In the {place}: {said} has no meaning without e.g. {without}.", hint="Add or drop it.")


def _catch_up(text: str) -> CatchUp:
    if text not in list(CatchUp):
        raise NotDefinedError("way to catch up", text, [known.value for known in CatchUp])
    return CatchUp(text)


def _attempts(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise DefinitionError(f"{text!r} is not a number of attempts.", hint="Write a whole number from 1 on.")
    return int(text)


def own_tags(tags: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The user's own tags, without ours."""
    return tuple(sorted((name, text) for name, text in tags.items() if not name.startswith(TAG_PREFIX)))


def _ours(tags: Mapping[str, str], place: str) -> dict[str, str]:
    found = {name.removeprefix(TAG_PREFIX): text for name, text in tags.items() if name.startswith(TAG_PREFIX)}
    for name in found:
        if name not in _KNOWN:
            raise DefinitionError(f"In the {place}: {NotDefinedError('tag', TAG_PREFIX + name, _tag_names())}")
    return found


def _tag_names() -> list[str]:
    return [TAG_PREFIX + name for name in _KNOWN]


@contextmanager
def _found_in(place: str) -> Iterator[None]:
    """Say of an error where its cause was found."""
    try:
        yield
    except TidemillError as error:
        raise DefinitionError(f"In the {place}: {error}") from error
