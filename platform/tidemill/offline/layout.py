"""How Tidemill writes the Parquet files that training reads back: cheap to decode, and large batches clustered by key.

LZ4 instead of denser codecs, since a training set decodes far more than anybody stores; dictionaries for everything but
fractions, whose values hardly repeat. A batch of more than one row group is put in order of key and time: a lookup then
codes each key once and searches within its rows. A small batch covers little time anyway and stays as it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 1 << 20


def write_rows(rows: pl.DataFrame, file: Path, *, keys: Sequence[str] = (), time: str | None = None) -> None:
    """Write a frame as one Parquet file, clustered by `keys` and then `time` where it is large.

    Rows of one key and time keep their order, which settles ties between them.
    """
    order = [name for name in (*keys, time) if name in rows.columns]
    if keys and rows.height > ROW_GROUP_ROWS:
        rows = rows.sort(order, maintain_order=True)
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    encoded: Any = [path for field in table.schema for path in _repeating(field.name, field.type)]
    pq.write_table(table, file, compression="lz4", use_dictionary=encoded, row_group_size=ROW_GROUP_ROWS)


def _repeating(path: str, dtype: pa.DataType) -> Iterator[str]:
    """The leaves of a column, by their paths in the file, whose values are worth a dictionary."""
    if pa.types.is_struct(dtype):
        for field in dtype:
            yield from _repeating(f"{path}.{field.name}", field.type)
    elif pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        yield from _repeating(f"{path}.list.element", dtype.value_type)
    elif not pa.types.is_floating(dtype) and not pa.types.is_boolean(dtype):
        yield path
