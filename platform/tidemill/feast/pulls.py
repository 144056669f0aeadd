"""Rows of a source as Feast pulls them: all of an interval, or the newest of each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
from feast.errors import FeastJoinKeysDuringMaterialization
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.file_source import FileSource

from tidemill.clock import as_utc
from tidemill.definitions.catalog import Source
from tidemill.feast.nouns import file_format_of
from tidemill.offline.files import SourceFiles
from tidemill.offline.scan import scan_source

_POSITION = "__position"


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """The columns that are asked of a source, under the names they have in the file. No features are all columns."""

    keys: Sequence[str] = ()
    features: Sequence[str]
    time: str
    known: str | None = None

    @property
    def times(self) -> list[str]:
        """What makes one row newer than another, the first first."""
        return [self.time, *([self.known] if self.known else [])]


def rows_between(
    root: Path, source: FileSource, wanted: Pulled, start: datetime | None, end: datetime | None
) -> pl.LazyFrame:
    """What is wanted of the rows with event time in `[start, end]`.

    Times come as UTC microseconds. Rows of a source without keys get Feast's stand-in key.
    """
    rows = _scan(root, source, wanted)
    present = rows.collect_schema().names()
    if not set(wanted.keys) <= set(present):
        raise FeastJoinKeysDuringMaterialization(source.path, set(wanted.keys), set(present))
    event = pl.col(wanted.time)
    if start is not None:
        rows = rows.filter(event >= as_utc(start))
    if end is not None:
        rows = rows.filter(event <= as_utc(end))
    columns = list(dict.fromkeys([*wanted.keys, *wanted.features, *wanted.times]))
    rows = rows.select(columns if wanted.features else pl.all())
    return rows if wanted.keys else rows.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))


def newest_of_each_key(rows: pl.LazyFrame, wanted: Pulled) -> pl.LazyFrame:
    """The winner of each key: greatest event time, then known time, then last position. Null keys match nothing."""
    by = [*wanted.keys] or [DUMMY_ENTITY_ID]
    order = [*wanted.times, _POSITION]
    return (
        rows.with_row_index(_POSITION)
        .drop_nulls(by)
        .sort(order, nulls_last=False)
        .unique(by, keep="last", maintain_order=True)
        .sort(_POSITION)
        .drop(_POSITION)
    )


def _scan(root: Path, source: FileSource, wanted: Pulled) -> pl.LazyFrame:
    noun = Source(
        name=source.name,
        path=source.path,
        timestamp_field=wanted.time,
        known_field=wanted.known or None,
        file_format=file_format_of(source),
    )
    return scan_source(SourceFiles.open(noun, root), {})


def columns_of(root: Path, source: FileSource) -> list[tuple[str, str]]:
    """A source's columns with Arrow's names of their types, as Feast's inference understands them.

    Arrow has several types for one thing: Feast knows text as `string`, and takes `large_string`, which Polars and
    others write, for JSON.
    """
    noun = Source(name=source.name, path=source.path, timestamp_field="", file_format=file_format_of(source))
    files = SourceFiles.open(noun, root)
    return [(name, str(_familiar(files.type_of(name)))) for name in files.columns]


def _familiar(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(dtype):
        return _familiar(dtype.value_type)
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pa.string()
    if pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype) or pa.types.is_fixed_size_binary(dtype):
        return pa.binary()
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return pa.list_(pa.field("item", _familiar(dtype.value_type)))
    return pa.timestamp("us") if pa.types.is_date(dtype) else dtype
