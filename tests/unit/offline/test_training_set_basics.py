"""What a training set promises, in the order a newcomer meets it."""

from __future__ import annotations

import polars as pl
from workshop import Workshop, at


def test_the_newest_row_at_or_before_the_request_wins(workshop: Workshop):
    workshop.simple({"id": [1, 1, 1], "event": [at(0), at(1), at(2)], "x": [10, 11, 12]})
    spine = pl.DataFrame({"id": [1, 1, 1], "event_timestamp": [at(1.5), at(2), at(-1)]})
    assert workshop.collect("v:x", spine)["x"].to_list() == [11, 12, None]


def test_the_manifest_names_what_the_training_set_was_made_from(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    made = workshop.store.training_set(["v:x"], pl.DataFrame({"id": [1], "event_timestamp": [at(1)]}))
    manifest = made.manifest()
    assert manifest["digest"] == made.digest
    assert manifest["sources"]["s"]["files"][0]["file"] == "s.parquet"
    assert manifest["mode"] == "served"
    assert manifest["features"] == ["x"]


def test_latest_gives_the_newest_row_of_each_key(workshop: Workshop):
    workshop.simple({"id": [1, 1, 2, None], "event": [at(0), at(1), at(0), at(0)], "x": [10, 11, 12, 13]})
    found = workshop.store.latest_rows("v", start=None, end=at(5))
    assert found.null_keys == 1
    assert sorted(found.frame.select("id", "x", "__event_time").rows()) == [(1, 11, at(1)), (2, 12, at(0))]


def test_appended_rows_are_read_after_those_that_were_there(workshop: Workshop):
    workshop.simple({"id": [1], "event": [at(0)], "x": [10]})
    workshop.store.append("s", {"id": [1], "event": [at(0)], "x": [11]})
    spine = pl.DataFrame({"id": [1], "event_timestamp": [at(1)]})
    assert workshop.collect("v:x", spine)["x"].to_list() == [11]
    assert workshop.store.scan("s").collect()["x"].to_list() == [10, 11]
