"""Section 3 of the semantics: what the online store had seen when it was asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from workshop import Workshop, ask, at

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Schedule, Stream
from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.offline.instants import NEVER
from tidemill.offline.store import OfflineStore
from tidemill.online.codec import decode_value, encode_value
from tidemill.settings import Settings


class RecordedRuns:
    """A ledger as materialization keeps it: when runs finished, and what they had seen."""

    def __init__(self, **views: list[tuple[datetime, datetime]]) -> None:
        self._views = views

    def cutoffs(self, view: str, *, between: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002
        rows = self._views.get(view, [])
        to = [np.array([int(item[side].timestamp() * 1e6) for item in rows], np.int64) for side in (0, 1)]
        return to[0], to[1]


def test_served_mode_sees_what_the_newest_finished_run_had_seen(workshop: Workshop):
    events = [at(hour) for hour in range(10)]
    workshop.simple({"id": [1] * 10, "event": events, "x": list(range(10))}, schedule="0 * * * *")
    workshop.ledger = RecordedRuns(v=[(at(3.1), at(3)), (at(6.2), at(6))])
    spine = ask((1, at(3.1)), (1, at(6.1)), (1, at(6.2)), (1, at(9)))
    assert workshop.collect("v:x", spine, mode="served")["x"].to_list() == [3, 3, 6, 6]
    assert workshop.collect("v:x", spine, mode="event")["x"].to_list() == [3, 6, 6, 9]


def test_before_the_ledger_begins_the_schedules_ticks_stand_for_runs(workshop: Workshop):
    events = [at(hour / 2) for hour in range(20)]
    schedule = Schedule(cron="0 * * * *", lag=timedelta(minutes=10))
    workshop.simple({"id": [1] * 20, "event": events, "x": list(range(20))}, schedule=schedule)
    spine = ask((1, at(2.1)), (1, at(2.5)), (1, at(2 + 1 / 6)))
    assert workshop.collect("v:x", spine, mode="served")["x"].to_list() == [2, 4, 4]
    workshop.ledger = RecordedRuns(v=[(at(6.2), at(6))])
    later = ask((1, at(2.5)), (1, at(9)))
    assert workshop.collect("v:x", later, mode="served")["x"].to_list() == [4, 12]


def test_served_mode_hides_what_became_known_after_the_run(workshop: Workshop):
    rows = {"id": [1, 1], "event": [at(0), at(1)], "known": [at(0), at(2.5)], "x": [10, 11]}
    workshop.simple(rows, schedule="0 * * * *")
    workshop.ledger = RecordedRuns(v=[(at(2), at(2)), (at(3), at(3))])
    spine = ask((1, at(2.9)), (1, at(3)))
    assert workshop.collect("v:x", spine, mode="served")["x"].to_list() == [10, 11]


def test_in_served_mode_the_ttl_is_still_counted_from_the_request(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]}, schedule="0 0 * * *", ttl=timedelta(hours=5))
    assert workshop.collect("v:x", ask((1, at(5)), (1, at(5.1))), mode="served")["x"].to_list() == [10, None]


def test_nothing_was_served_before_the_first_run(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]}, schedule=Schedule(every=timedelta(days=30)))
    assert workshop.store.cutoffs("v", np.array([0], np.int64)).tolist() == [0]
    workshop.ledger = RecordedRuns(v=[(at(9), at(9))])
    found = workshop.collect("v:x", ask((1, at(9)), (1, at(8))), mode="served")
    assert found["x"].to_list()[0] == 10


def test_pushed_views_and_views_without_a_schedule_are_as_fresh_as_the_request(workshop: Workshop):
    workshop.streams.append(Stream(name="p", kind="push", source="s"))
    workshop.simple({"id": [1, 1], "event": [at(0), at(1)], "x": [10, 11]}, stream="p")
    other = workshop.source("t", {"id": [1, 1], "event": [at(0), at(1)], "y": [10, 11]})
    workshop.view("w", other, {"y": ValueType.INT64})
    asked = np.array([5, NEVER], np.int64)
    assert workshop.store.cutoffs("v", asked).tolist() == asked.tolist()
    found = workshop.collect(["v:x", "w:y"], ask((1, at(1))), mode="served")
    assert found.select("x", "y").rows() == [(11, 11)]


def test_an_unknown_mode_is_refused(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    with pytest.raises(InputError, match="served"):
        workshop.collect("v:x", ask((1, at(1))), mode="online")


def test_values_at_takes_cutoffs_of_the_callers(workshop: Workshop):
    workshop.simple({"id": [1, 1], "event": [at(0), at(2)], "x": [10, 11]}, ttl=timedelta(hours=3))
    micros = lambda hours: int(at(hours).timestamp() * 1e6)  # noqa: E731
    keys = pl.DataFrame({"id": [1, 1, 1]})
    asked = np.array([micros(3), micros(3), micros(4)])
    found = workshop.store.values_at("v", keys, asked, np.array([micros(1), micros(3), micros(1)]))
    assert found.rows() == [(10, at(0)), (11, at(2)), (None, None)]


@pytest.mark.parametrize(("layout", "kept"), [("feast", timedelta(0)), ("packed", timedelta(milliseconds=750))])
def test_times_are_as_fine_as_the_online_store_keeps_them(workshop: Workshop, layout: str, kept: timedelta):
    fine = at(0) + timedelta(milliseconds=750)
    workshop.view(
        "v", workshop.source("s", {"id": [1], "event": [at(0)], "x": [fine]}), {"x": ValueType.UNIX_TIMESTAMP}
    )
    store = store_of(workshop, layout)
    spine = ask((1, at(1)))
    assert store.training_set("v:x", spine, mode="served").collect()["x"].to_list() == [at(0) + kept]
    assert store.training_set("v:x", spine, mode="event").collect()["x"].to_list() == [fine]
    now = np.array([to_micros(at(1))])
    assert store.values_at("v", spine.select("id"), now, now)["x"].to_list() == [at(0) + kept]


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_times_in_lists_are_as_fine_as_the_online_store_keeps_them(workshop: Workshop, layout: str):
    early, fine = datetime(1969, 12, 31, 23, tzinfo=UTC), timedelta(milliseconds=750)
    lists = [[at(0) + fine, None, early + fine], [], None, [None]]
    rows = {"id": [1, 2, 3, 4], "event": [at(0)] * 4, "x": lists}
    source = workshop.source("s", pl.DataFrame(rows, schema_overrides={"x": pl.List(pl.Datetime("us", "UTC"))}))
    dtype = ValueType.UNIX_TIMESTAMP_LIST
    workshop.view("v", source, {"x": dtype})
    store, spine = store_of(workshop, layout), ask(*((number, at(1)) for number in rows["id"]))
    served = store.training_set("v:x", spine, mode="served").collect()["x"].to_list()
    assert served == [[at(0), None, early], [], None, [None]]
    assert served == [decode_value(dtype, encode_value(dtype, one)) for one in lists]
    assert store.training_set("v:x", spine, mode="event").collect()["x"].to_list() == lists


def store_of(workshop: Workshop, layout: str) -> OfflineStore:
    settings = Settings.model_validate({"online_layout": layout})
    return OfflineStore(root=workshop.root, catalog=workshop.catalog, settings=settings)
