"""Pages that hold nothing but values are read as they lie; all others, and damaged ones, by the general reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import Workshop, at

from tidemill.definitions.catalog import Source
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError
from tidemill.offline import blocks
from tidemill.offline.data_file import DataFile
from tidemill.offline.files import SourceFiles

ROWS = 1_000
PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}
SOURCE = Source(name="s", path="s.parquet", timestamp_field="event")


def _table(*, nullable: bool = True) -> pa.Table:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**63, ROWS, dtype=np.uint64)
    columns = {
        "id": pa.array(rng.integers(-(2**63), 2**63 - 1, ROWS)),
        "small": pa.array(rng.integers(-(2**31), 2**31 - 1, ROWS), pa.int32()),
        "float": pa.array(bits.view(np.float64)),  # NaNs of any payload among them
        "half": pa.array(rng.random(ROWS, np.float32)),
        "ns": pa.array(np.arange(ROWS)).cast(pa.timestamp("ns", "UTC")),
        "us": pa.array(np.arange(ROWS)).cast(pa.timestamp("us", "Asia/Tokyo")),
        "ms": pa.array(np.arange(ROWS)).cast(pa.timestamp("ms")),
    }
    arrays = list(columns.values())
    fields = [pa.field(name, column.type, nullable) for name, column in columns.items()]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _open(root: Path, table: pa.Table, **options: Any) -> DataFile:
    pq.write_table(table, root / "s.parquet", **{**PLAIN, **options})
    return SourceFiles.open(SOURCE, root).files[0]


def _read_plain(file: DataFile) -> set[str]:
    """The columns that were read as they lie, in all row groups."""
    names = {name for _, name in file.footer.plain}
    return {
        name for name in names if all(pages is not None for (_, at), pages in file.footer.plain.items() if at == name)
    }


def _same_bits(one: pa.Table, other: pa.Table) -> bool:
    frames = [pl.DataFrame(pl.from_arrow(table.cast(table.schema))) for table in (one, other)]
    return all(
        frames[0][name].to_physical().to_numpy().tobytes() == frames[1][name].to_physical().to_numpy().tobytes()
        for name in one.column_names
    )


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"max_rows_per_page": 7}, {"row_group_size": 300}, {"write_statistics": False}]
)
def test_values_are_read_as_they_lie_bit_for_bit(
    tmp_path: Path, version: str, nullable: bool, options: dict[str, Any]
) -> None:
    table = _table(nullable=nullable)
    file = _open(tmp_path, table, data_page_version=version, **options)
    groups = list(range(file.metadata.num_row_groups))
    assert _same_bits(file.read(groups, table.column_names), table)
    assert _read_plain(file) == set(table.column_names)
    assert _same_bits(
        file.read(groups[-1:], ["float", "id"]), pq.ParquetFile(file.path).read_row_group(groups[-1], ["float", "id"])
    )


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lz4"},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"use_dictionary": True},
        {"column_encoding": {"float": "BYTE_STREAM_SPLIT", "id": "DELTA_BINARY_PACKED"}},
    ],
)
def test_pages_that_are_encoded_are_decoded(tmp_path: Path, options: dict[str, Any]) -> None:
    table = _table()
    file = _open(tmp_path, table, **options)
    assert _same_bits(file.read([0], table.column_names), table)
    assert not _read_plain(file) & {"float", "id"}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("missing", [[0], [ROWS - 1], range(ROWS), range(0, ROWS, 2)])
def test_a_column_with_nulls_is_decoded(tmp_path: Path, version: str, missing: Any) -> None:
    mask = np.zeros(ROWS, bool)
    mask[list(missing)] = True
    table = pa.table({"x": pa.array(np.arange(ROWS), mask=mask), "y": pa.array(np.arange(ROWS))})
    file = _open(tmp_path, table, data_page_version=version)
    assert file.read([0], ["x", "y"]).equals(table)
    assert _read_plain(file) == {"y"}


def test_types_that_are_not_stored_as_they_are_in_memory_are_decoded(tmp_path: Path) -> None:
    table = pa.table(
        {
            "byte": pa.array([1, 2], pa.int8()),
            "unsigned": pa.array([2**64 - 1, 0], pa.uint64()),
            "day": pa.array([1, 2], pa.int32()).cast(pa.date32()),
            "flag": [True, False],
            "text": ["a", "b"],
            "list": [[1], [2, 3]],
            "struct": [{"x": 1}, {"x": 2}],
            "struct.x": [3, 4],
        }
    )
    file = _open(tmp_path, table)
    expected = pq.read_table(file.path)
    assert file.read([0], table.column_names).equals(expected)
    assert _read_plain(file) == set()


def test_an_empty_row_group_is_read(tmp_path: Path) -> None:
    file = _open(tmp_path, _table().slice(0, 0))
    assert file.read(list(range(file.metadata.num_row_groups)), ["id"]).num_rows == 0


@pytest.fixture
def one_view(workshop: Workshop) -> Workshop:
    """A view over a file of plain pages."""
    rows = {"id": [1] * ROWS, "event": [at(0)] * ROWS, "x": np.random.default_rng(1).random(ROWS)}
    pq.write_table(pl.DataFrame(rows).to_arrow(), workshop.root / "s.parquet", **PLAIN)
    workshop.view("v", workshop.source("s"), {"x": ValueType.DOUBLE})
    return workshop


SPINE = pl.DataFrame({"id": [1], "event_timestamp": [at(1)]})


@pytest.mark.parametrize("bytes_of_header", [1, 8, 40])
def test_a_damaged_page_header_is_reported(one_view: Workshop, bytes_of_header: int) -> None:
    path = one_view.root / "s.parquet"
    raw = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(2).data_page_offset
    raw[start : start + bytes_of_header] = b"\xff" * bytes_of_header
    path.write_bytes(bytes(raw))
    with pytest.raises(SourceError, match=r"s\.parquet of source 's' cannot be read"):
        one_view.collect("v:x", SPINE)


def test_a_file_that_changes_while_it_is_read_is_reported(one_view: Workshop) -> None:
    files = one_view.store.source_files("s")
    (one_view.root / "s.parquet").write_bytes((one_view.root / "s.parquet").read_bytes()[:-100])
    with pytest.raises(SourceError, match="was replaced or taken away"):
        files.read(files.row_groups, ["x"])


def test_a_file_that_was_replaced_is_read_anew(one_view: Workshop) -> None:
    before = one_view.collect("v:x", SPINE)["x"].to_list()
    rows = {"id": [1] * ROWS, "event": [at(0)] * ROWS, "x": np.arange(ROWS) * 1.5}
    pq.write_table(pl.DataFrame(rows).to_arrow(), one_view.root / "s.parquet", **PLAIN)
    assert one_view.collect("v:x", SPINE)["x"].to_list() == [(ROWS - 1) * 1.5] != before


@pytest.mark.parametrize("options", [{}, {"max_rows_per_page": 7}, {"row_group_size": 300}])
@pytest.mark.parametrize("wanted", ["a few", "in order", "in no order"])
def test_some_rows_are_taken_from_between_others_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], wanted: str
) -> None:
    monkeypatch.setattr(blocks, "_ROWS", 50)
    table = _table()
    file = _open(tmp_path, table, **options)
    group = file.metadata.num_row_groups - 1
    there = pq.ParquetFile(file.path).read_row_group(group)
    rng = np.random.default_rng(4)
    rows = rng.integers(0, there.num_rows, 3 if wanted == "a few" else 200)
    rows = np.sort(rows) if wanted == "in order" else rows
    found: dict[str, list[Any]] = {name: [] for name in table.column_names}
    for name, some, values in file.take_as_they_lie(group, table.column_names, rows):
        assert len(values) == len(rows[some])
        found[name].append(values)
    for name, parts in found.items():
        expected = pl.DataFrame(pl.from_arrow(there.select([name])))[name].to_physical().to_numpy()[rows]
        assert np.concatenate(parts).tobytes() == expected.tobytes()


def test_encoded_columns_are_not_taken_as_they_lie(tmp_path: Path) -> None:
    table = _table()
    file = _open(tmp_path, table, use_dictionary=["id"], compression={"float": "lz4"})
    taken = {name for name, _, _ in file.take_as_they_lie(0, table.column_names, np.arange(ROWS))}
    assert taken == set(table.column_names) - {"id", "float"}


def test_rows_of_a_file_that_was_replaced_meanwhile_are_not_taken(tmp_path: Path) -> None:
    file = _open(tmp_path, _table())
    pq.write_table(_table().slice(1), tmp_path / "other.parquet", **PLAIN)
    (tmp_path / "other.parquet").replace(file.path)
    with pytest.raises(OSError, match="changed"):
        list(file.take_as_they_lie(0, ["float"], np.arange(10)))
