"""Entity keys as dense integers: the keys that occur in a spine get codes, every other key is -1.

Rows of a source whose key nobody asks about fall out here, before anything is sorted or searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.definitions.types import ValueType
from tidemill.offline.arrow_numbers import as_mask, as_numbers, as_series
from tidemill.offline.casting import as_flags
from tidemill.offline.families import family
from tidemill.offline.instants import is_instant, to_instants
from tidemill.offline.side_by_side import few_at_a_time
from tidemill.offline.taking import taken

Codes = npt.NDArray[np.integer]

_NARROW = 1 << 24
"""Integers within this range are looked up in a table; wider ones are joined by hash."""
_BEYOND = 2.0**63
"""The first float that is no int64."""


class KeyTypeError(ValueError):
    """A key column's type cannot hold keys of the declared type."""


class _Coder(Protocol):
    size: int

    def codes(self, column: pa.ChunkedArray) -> Codes: ...

    def between(self, least: int | str, greatest: int | str) -> tuple[int, int] | None: ...


class KeyCoder:
    """Codes of key tuples, fitted to those of a spine. Codes rise with the keys' order, column by column."""

    def __init__(
        self, coders: Sequence[_Coder], stages: Sequence[_IntegerCoder], *, size: int, first_codes: Codes
    ) -> None:
        self.first_codes = first_codes
        self._coders = tuple(coders)
        self._stages = tuple(stages)
        self.size = size

    @classmethod
    def fit(cls, keys: pl.DataFrame, types: Sequence[ValueType], *, rows: int) -> tuple[KeyCoder, Codes]:
        """A coder for the distinct rows of `keys`, and the code of each row; -1 where any key is null.

        Without keys (an entity-less view) all `rows` have one code.

        Raises KeyTypeError where a column's type cannot hold keys of its declared type.
        """
        if keys.width == 0:
            alone = np.zeros(rows, np.int64)
            return cls((), (), size=1, first_codes=alone), alone
        coders: list[_Coder] = []
        columns: list[Codes] = []
        for series, dtype in zip(keys.get_columns(), types, strict=True):
            coder, codes = _fit_column(series, dtype)
            coders.append(coder)
            columns.append(codes)
        combined, size = columns[0], coders[0].size
        stages: list[_IntegerCoder] = []
        for codes, coder in zip(columns[1:], coders[1:], strict=True):
            mixed = _mix(combined, codes, coder.size)
            stage = _IntegerCoder(mixed[mixed >= 0])
            stages.append(stage)
            combined, size = stage.codes_of(mixed), stage.size
            combined[mixed < 0] = -1
        return cls(coders, stages, size=size, first_codes=columns[0]), combined

    def codes_between(self, least: int | str, greatest: int | str) -> tuple[int, int] | None:
        """The codes of the first key's values in `[least, greatest]`: from the first to before the last."""
        return self._coders[0].between(least, greatest) if self._coders else None

    def codes(self, columns: Sequence[pa.ChunkedArray], rows: int) -> Codes:
        """The codes of a source's rows, -1 for keys that are null or not in the spine."""
        if not self._coders:
            return np.zeros(rows, np.int64)
        combined = self._coders[0].codes(columns[0])
        for column, coder, stage in zip(columns[1:], self._coders[1:], self._stages, strict=True):
            mixed = _mix(combined, coder.codes(column), coder.size)
            combined = stage.codes_of(mixed)
            combined[mixed < 0] = -1
        return combined


def as_declared(keys: pl.DataFrame, types: Sequence[ValueType]) -> pl.DataFrame:
    """Key columns as they were declared: whole numbers are int64, and what is missing is null.

    Raises KeyTypeError where a column's type cannot hold keys of its declared type.
    """
    if not keys.width:
        return keys
    return pl.DataFrame([_as_declared(series, dtype) for series, dtype in zip(keys.get_columns(), types, strict=True)])


class _IntegerCoder:
    """Codes of whole numbers: a table for a narrow range, a hash join for a wide one."""

    def __init__(self, values: Codes, *, are_flags: bool = False) -> None:
        self._are_flags = are_flags
        self._least = int(values.min()) if len(values) else 0
        greatest = int(values.max()) if len(values) else -1
        span = greatest - self._least + 1
        self._distinct: npt.NDArray[np.int64]
        self._table: npt.NDArray[np.int32] | None = None
        self._join: pl.DataFrame | None = None
        if span <= max(_NARROW, 4 * len(values)):
            present = np.zeros(span + 1, bool)
            for some in few_at_a_time(len(values)):
                present[values[some] - self._least] = True
            self._distinct = np.flatnonzero(present) + self._least
            self.size = len(self._distinct)
            self._table = np.where(present, np.cumsum(present, dtype=np.int32) - 1, np.int32(-1)).astype(np.int32)
        else:
            distinct = pl.Series("key", values).unique().sort()
            self._distinct = distinct.to_numpy()
            self.size = len(distinct)
            self._join = pl.DataFrame([distinct]).with_columns(code=pl.int_range(pl.len(), dtype=pl.Int64))

    def codes_of(self, values: Codes) -> Codes:
        if self._table is not None:
            found = np.empty(len(values), self._table.dtype)
            for some in few_at_a_time(len(values)):
                found[some] = self._in_table(self._table, values[some])
            return found
        assert self._join is not None  # noqa: S101 - one of both is always set
        asked = pl.DataFrame({"key": values})
        found = asked.join(self._join, on="key", how="left", maintain_order="left")["code"]
        return found.fill_null(-1).to_numpy().copy()

    def _in_table(self, table: npt.NDArray[np.int32], values: Codes) -> npt.NDArray[np.int32]:
        # The table's last cell is -1: everything outside the range is sent there.
        places = values - self._least
        last = len(table) - 1
        if places.min() < 0 or places.max() > last:
            # A difference that wrapped around is caught by comparing the values themselves.
            places = np.where((values < self._least) | (values > self._least + last), last, places)
        return taken(table, places)

    def between(self, least: int | str, greatest: int | str) -> tuple[int, int] | None:
        if isinstance(least, str) or isinstance(greatest, str):
            return None
        first = np.searchsorted(self._distinct, np.int64(least), side="left")
        return int(first), int(np.searchsorted(self._distinct, np.int64(greatest), side="right"))

    def codes(self, column: pa.ChunkedArray) -> Codes:
        if self._are_flags and family(column.type) == "text":
            column = _flags_in_text(column)
        values, missing = _whole_numbers(column)
        found = self.codes_of(values)
        if missing is not None:
            found[missing] = -1
        return found


class _TextCoder:
    """Codes of text or bytes: each distinct value of a Parquet dictionary is looked up once."""

    def __init__(self, distinct: pl.Series) -> None:
        self.size = len(distinct)
        self._distinct = distinct
        self._binary = distinct.dtype == pl.Binary
        self._join = pl.DataFrame([distinct.alias("key")]).with_columns(code=pl.int_range(pl.len(), dtype=pl.Int64))

    def codes(self, column: pa.ChunkedArray) -> Codes:
        kind = family(column.type)
        if kind == "null":
            return np.full(len(column), -1, np.int64)
        if kind != ("bytes" if self._binary else "text"):
            raise KeyTypeError(f"is {column.type}, but the keys are {'bytes' if self._binary else 'text'}")
        chunks = [chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode() for chunk in column.chunks]
        if not chunks:
            return np.empty(0, np.int64)
        tables = self._look_up([chunk.dictionary for chunk in chunks])
        parts = [table[_indices(chunk)] for chunk, table in zip(chunks, tables, strict=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def between(self, least: int | str, greatest: int | str) -> tuple[int, int] | None:
        if self._binary or not isinstance(least, str) or not isinstance(greatest, str):
            return None
        first = self._distinct.search_sorted(least, side="left")
        return int(first), int(self._distinct.search_sorted(greatest, side="right"))

    def _look_up(self, dictionaries: list[pa.Array]) -> list[Codes]:
        """One table of codes for each dictionary, with -1 as its last cell for nulls."""
        wide = pa.large_binary() if self._binary else pa.large_string()
        asked = pl.DataFrame({"key": pl.from_arrow(pa.chunked_array([item.cast(wide) for item in dictionaries], wide))})
        found = asked.join(self._join, on="key", how="left", maintain_order="left")["code"].fill_null(-1).to_numpy()
        ends = np.cumsum([len(item) for item in dictionaries])[:-1]
        return [np.append(part, -1) for part in np.split(found, ends)]


def _fit_column(series: pl.Series, dtype: ValueType) -> tuple[_Coder, Codes]:
    column = _as_arrow(series, dtype)
    if dtype in (ValueType.STRING, ValueType.BYTES):
        wanted = pl.Binary if dtype is ValueType.BYTES else pl.String
        values = pl.Series("key", pl.from_arrow(column)).cast(wanted)
        coder: _Coder = _TextCoder(values.drop_nulls().unique().sort())
        return coder, coder.codes(pa.chunked_array([values.to_arrow(compat_level=pl.CompatLevel.oldest())]))
    numbers, missing = _whole_numbers(column)
    coder = _IntegerCoder(numbers if missing is None else numbers[~missing], are_flags=dtype is ValueType.BOOL)
    return coder, coder.codes(column)


def _as_declared(series: pl.Series, dtype: ValueType) -> pl.Series:
    column = _as_arrow(series, dtype)
    if dtype in (ValueType.STRING, ValueType.BYTES, ValueType.BOOL):
        return pl.Series(series.name, pl.from_arrow(column))
    numbers, missing = _whole_numbers(column)
    whole = as_series(series.name, numbers, missing)
    return whole.cast(pl.Datetime("us", "UTC")) if dtype is ValueType.UNIX_TIMESTAMP else whole


def _as_arrow(series: pl.Series, dtype: ValueType) -> pa.ChunkedArray:
    """A spine's key column as Arrow, once its type is seen to fit the entity's."""
    if series.dtype == pl.Null or not len(series):
        of_kind = {ValueType.STRING: pa.string(), ValueType.BYTES: pa.binary(), ValueType.BOOL: pa.bool_()}
        empty = of_kind.get(dtype, pa.int64())
        return pa.chunked_array([pa.nulls(len(series), empty)])
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    column = pa.chunked_array([series.to_arrow(compat_level=pl.CompatLevel.oldest())])
    expected = {ValueType.STRING: "text", ValueType.BYTES: "bytes", ValueType.BOOL: "boolean"}.get(dtype, "number")
    if dtype is ValueType.UNIX_TIMESTAMP:
        expected = "instant"
    if family(column.type) != expected:
        raise KeyTypeError(f"is {series.dtype}, but the entity's keys are {dtype.name}")
    return column


def _whole_numbers(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    """A column of integers, booleans, instants or whole floats as int64, and which rows are missing."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64), np.ones(len(column), bool)
    missing = as_mask(column.is_null(nan_is_null=True)) if _may_miss(column) else None
    if is_instant(column.type):
        return to_instants(column, "us", null=0), missing
    if pa.types.is_floating(column.type):
        numbers = np.nan_to_num(as_numbers(pc.fill_null(column, 0.0).cast(pa.float64())), nan=0.0)
        if not np.array_equal(numbers, np.floor(numbers)):
            raise KeyTypeError("holds fractions, but the keys are whole numbers")
        if len(numbers) and not (numbers.min() >= -_BEYOND and numbers.max() < _BEYOND):
            raise KeyTypeError("holds numbers beyond 64 bits with a sign")
        return numbers.astype(np.int64), missing
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        filled = (
            pc.fill_null(column, False if pa.types.is_boolean(column.type) else 0) if missing is not None else column
        )
        try:
            return as_numbers(filled.cast(pa.int64())), missing
        except pa.ArrowInvalid as error:
            raise KeyTypeError(f"holds numbers beyond 64 bits with a sign ({error})") from None
    if family(column.type) == "text":
        return _numbers_in_text(column), missing
    raise KeyTypeError(f"is {column.type}, but the keys are whole numbers")


def _numbers_in_text(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Keys named by folders (hive partitions) are text; a file's own text column never comes here with number keys."""
    try:
        return as_numbers(pc.fill_null(column.cast(pa.int64()), 0))
    except pa.ArrowInvalid:
        raise KeyTypeError(f"is {column.type}, but the keys are whole numbers") from None


def _flags_in_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same of keys that are true or false."""
    try:
        flags = as_flags(pl.Series(pl.from_arrow(column)).cast(pl.String))
    except pl.exceptions.InvalidOperationError as error:
        raise KeyTypeError(f"is {column.type}, but the keys are BOOL, and {error}") from None
    return pa.chunked_array([flags.to_arrow()])


def _may_miss(column: pa.ChunkedArray) -> bool:
    return bool(column.null_count) or pa.types.is_floating(column.type)


def _indices(chunk: pa.DictionaryArray) -> npt.NDArray[np.integer]:
    indices = chunk.indices
    if indices.null_count:
        indices = pc.fill_null(indices, len(chunk.dictionary))
    return as_numbers(indices)


def _mix(first: Codes, second: Codes, size: int) -> Codes:
    mixed = first.astype(np.int64) * max(size, 1) + second
    mixed[(first < 0) | (second < 0)] = -1
    return mixed
