"""How Tidemill writes the Parquet files that training reads back: cheap to decode, and large batches clustered by key.

A training set decodes far more than anybody stores. So numbers that LZ4 would hardly make smaller (fractions, as a
rule) lie in the file as they lie in memory, one page for each row group, and need no decoding at all (`plain_pages`);
everything else gets LZ4 instead of a denser codec, and a dictionary unless it is a fraction. A batch of more than one
row group is put in order of key and time: a lookup then codes each key once and searches within its rows. It looks at
the times of nearly all of them, so these lie as they are too, at eight bytes for each. A small batch covers little time
anyway and stays as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 1 << 20
_ONE_PAGE = 16 * ROW_GROUP_ROWS
"""Bytes; more than the numbers of one row group take."""
_NO_DICTIONARY = {"FLOAT", "DOUBLE", "BOOLEAN"}
_SAMPLE = 1 << 16
_WORTH_IT = 0.75
"""LZ4 has to make a column at least so much smaller before its values are compressed."""


def write_rows(rows: pl.DataFrame, file: Path, *, keys: Sequence[str] = (), time: str | None = None) -> None:
    """Write a frame as one Parquet file, clustered by `keys` and then `time` where it is large.

    Rows of one key and time keep their order, which settles ties between them.
    """
    clustered = bool(keys) and rows.height > ROW_GROUP_ROWS
    if clustered:
        rows = rows.sort([name for name in (*keys, time) if name in rows.columns], maintain_order=True)
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    plain = {name for name in table.column_names if _lies_plain(table.column(name), clustered=clustered)} - {*keys}
    leaves = _leaves(table.schema)
    codecs: Any = {leaf.path: "none" if leaf.path in plain else "lz4" for leaf in leaves}
    encoded: Any = [leaf.path for leaf in leaves if leaf.path not in plain and leaf.physical_type not in _NO_DICTIONARY]
    pq.write_table(
        table,
        file,
        compression=codecs,
        use_dictionary=encoded,
        row_group_size=ROW_GROUP_ROWS,
        data_page_size=_ONE_PAGE,
        max_rows_per_page=ROW_GROUP_ROWS,
    )


def _lies_plain(column: pa.ChunkedArray, *, clustered: bool) -> bool:
    """Whether a column is one of numbers or times that need not, or should not, be compressed."""
    dtype = column.type
    is_time = pa.types.is_timestamp(dtype)
    if column.null_count or not (is_time or dtype in (pa.int64(), pa.int32(), pa.float64(), pa.float32())):
        return False
    if is_time and clustered:
        return True
    sample = column.slice(len(column) // 2, _SAMPLE).combine_chunks()
    start, size = sample.offset * dtype.bit_width // 8, len(sample) * dtype.bit_width // 8
    values = sample.buffers()[1].slice(start, size) if size else pa.py_buffer(b"")
    return pa.compress(values, codec="lz4").size > _WORTH_IT * size


def _leaves(schema: pa.Schema) -> list[pq.ColumnSchema]:
    """The leaves of all columns, by the paths that Parquet gives them."""
    written = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), written)
    leaves = pq.read_metadata(pa.BufferReader(written.getvalue())).schema
    return [leaves.column(place) for place in range(len(leaves))]
