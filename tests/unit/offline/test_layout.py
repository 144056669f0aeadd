"""How appended rows lie in their file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from tidemill.definitions.catalog import Catalog, Entity, Feature, Source, View
from tidemill.definitions.types import ValueType
from tidemill.offline import layout
from tidemill.offline.files import SourceFiles
from tidemill.offline.store import OfflineStore

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OfflineStore:
    """A source without files; a batch of more than four rows is a large one."""
    monkeypatch.setattr(layout, "ROW_GROUP_ROWS", 4)
    view = View(
        name="v",
        entities=("id",),
        join_keys=("id",),
        features=(Feature(name="x", dtype=ValueType.DOUBLE), Feature(name="tags", dtype=ValueType.STRING_LIST)),
        source="s",
    )
    source = Source(name="s", path="s", timestamp_field="event", known_field="known")
    entity = Entity(name="id", join_key="id", dtype=ValueType.STRING)
    return OfflineStore(
        root=tmp_path, catalog=Catalog(project="p", entities=(entity,), sources=(source,), views=(view,))
    )


def _rows(*rows: tuple[str, int, float]) -> pl.DataFrame:
    """Rows of (key, hour, value), all known at the same time."""
    return pl.DataFrame(
        {
            "id": [key for key, _, _ in rows],
            "event": [START + timedelta(hours=hour) for _, hour, _ in rows],
            "known": [START + timedelta(hours=9)] * len(rows),
            "x": [value for _, _, value in rows],
            "tags": [[key] for key, _, _ in rows],
        }
    )


MANY = (("b", 1, 1.0), ("a", 2, 2.0), ("b", 0, 3.0), ("a", 1, 4.0), ("b", 1, 5.0), ("a", 2, 6.0))


def test_a_large_batch_lies_by_key_and_time_and_ties_keep_their_order(store: OfflineStore) -> None:
    written = pl.read_parquet(store.append("s", _rows(*MANY)))
    assert written["id"].to_list() == ["a", "a", "a", "b", "b", "b"]
    assert written["x"].to_list() == [4.0, 2.0, 6.0, 3.0, 1.0, 5.0]


def test_a_small_batch_lies_as_it_came(store: OfflineStore) -> None:
    assert pl.read_parquet(store.append("s", _rows(*MANY[:4])))["x"].to_list() == [1.0, 2.0, 3.0, 4.0]


def test_of_equal_rows_in_a_large_batch_the_last_one_still_wins(store: OfflineStore) -> None:
    store.append("s", _rows(*MANY))
    spine = pl.DataFrame({"id": ["a", "b", "c"], "event_timestamp": [START + timedelta(hours=9)] * 3})
    found = store.training_set(["v:x", "v:tags"], spine, mode="event").collect()
    assert found["x"].to_list() == [6.0, 5.0, None]
    assert found["tags"].to_list() == [["a"], ["b"], None]


def _chunks(file: Path) -> dict[str, pq.ColumnChunkMetaData]:
    group = pq.read_metadata(file).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    return {column.path_in_schema: column for column in columns}


def test_what_repeats_has_a_dictionary_and_fractions_and_times_lie_as_they_are(store: OfflineStore) -> None:
    chunks = _chunks(store.append("s", _rows(*MANY)))
    encoded = {path: "RLE_DICTIONARY" in chunk.encodings for path, chunk in chunks.items()}
    assert encoded == {"id": True, "event": False, "known": False, "x": False, "tags.list.element": True}
    compressed = {path for path, chunk in chunks.items() if chunk.compression != "UNCOMPRESSED"}
    assert compressed == {"id", "tags.list.element"}


def test_numbers_lie_as_they_are_only_where_lz4_would_hardly_help(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "noise": np.random.default_rng(1).random(5_000),
            "round": np.arange(5_000) % 7 / 4.0,
            "count": np.arange(5_000) % 3,
            "holes": [None, 0.1] * 2_500,
        }
    )
    layout.write_rows(rows, tmp_path / "rows.parquet")
    chunks = _chunks(tmp_path / "rows.parquet")
    assert {path for path, chunk in chunks.items() if chunk.compression == "UNCOMPRESSED"} == {"noise"}
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(rows)


def test_every_kind_of_column_can_be_written(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "struct": [{"a": 1, "b": [0.5]}, None],
            "list": [[True], []],
            "decimal": [Decimal("1.50"), None],
            "bytes": [b"\x00", b""],
            "day": [START.date(), None],
            "nothing": [None, None],
        }
    )
    layout.write_rows(rows, tmp_path / "rows.parquet")
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(rows)
    layout.write_rows(rows.clear(), tmp_path / "none.parquet")
    assert pl.read_parquet(tmp_path / "none.parquet").height == 0


def test_other_readers_find_the_same_rows_in_the_same_order(store: OfflineStore) -> None:
    """A clustered file of several row groups, some columns of which lie as they are: ordinary Parquet."""
    file = store.append("s", _rows(*MANY))
    here = SourceFiles.open(store.catalog.source("s"), store.root)
    tidemill = pl.DataFrame(pl.from_arrow(here.read(here.row_groups, ["id", "known", "x"])))
    by_duckdb = duckdb.read_parquet(str(file)).project("id, epoch_us(known), x").fetchall()
    by_polars = pl.read_parquet(file).select("id", pl.col("known").dt.epoch("us"), "x").rows()
    assert tidemill.with_columns(pl.col("known").dt.epoch("us")).rows() == by_duckdb == by_polars
    assert pq.read_metadata(file).num_row_groups == 2
