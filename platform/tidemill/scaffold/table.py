"""The table that a new project starts from: read from a file as people have them, its times made instants in UTC."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import polars as pl

from tidemill.errors import InputError
from tidemill.extract.readers import as_instant

_SEPARATORS = ",;\t|"
_EITHER_FIRST = re.compile(r"\d{1,2}[/-]\d{1,2}[/-]\d{4}\b")
_INSTANT = pl.Datetime("us", "UTC")


def read_table(file: Path) -> pl.DataFrame:
    """Raises InputError for anything that is no Parquet or CSV file with rows."""
    readers = {".parquet": pl.read_parquet, ".csv": _read_csv}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"{file} is neither Parquet nor CSV.", hint=f"Known endings: {', '.join(readers)}.")
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    try:
        table = reader(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{file} cannot be read: {str(error).splitlines()[0]}.") from error
    if table.is_empty():
        raise InputError(f"{file} holds no rows.", hint="A project starts from at least one row.")
    return table


def day_first(file: Path, column: str) -> str | None:
    """A date of a CSV file's column as it is written there, if it is one like 03/04/2024: its day is read first."""
    if file.suffix.lower() != ".csv":
        return None
    with file.open("rb") as opened:
        separator = _separator(opened.readline().decode("utf-8-sig"))
    texts = pl.read_csv(file, separator=separator, infer_schema=False, n_rows=1)
    written = texts.to_dicts()[0].get(column) or ""
    return written if _EITHER_FIRST.match(written) else None


def with_instants(table: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Dates, times and ISO texts as instants in UTC; without a zone they are UTC already.

    Raises InputError for a column of anything else.
    """
    return table.with_columns(_instants(table.get_column(column)) for column in columns)


def with_texts_read(table: pl.DataFrame) -> pl.DataFrame:
    """A table without any date or instant, in which texts that are instants throughout have become some."""
    if any(isinstance(dtype, pl.Datetime | pl.Date) for dtype in table.dtypes):
        return table
    texts = [values for values in table if values.dtype == pl.String and values.null_count() < len(values)]
    return table.with_columns(read for read in map(_read_instants, texts) if read is not None)


def _instants(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Date:
        values = values.cast(pl.Datetime("us"))
    if isinstance(values.dtype, pl.Datetime):
        return (
            values.dt.replace_time_zone("UTC") if values.dtype.time_zone is None else values.dt.convert_time_zone("UTC")
        )
    if values.dtype == pl.String and (read := _read_instants(values)) is not None:
        return read
    example = ", ".join(map(str, values.drop_nulls().head(1)))
    raise InputError(
        f"The column {values.name!r} is {values.dtype} ({example}); the event time is a date or an instant.",
        hint="Write it as ISO 8601, e.g. 2024-03-01T09:15:00Z, or name another column with --time.",
    )


def _read_instants(values: pl.Series) -> pl.Series | None:
    try:
        return values.to_frame().select(as_instant(pl.col(values.name), _INSTANT)).to_series()
    except pl.exceptions.PolarsError:
        return None


def _read_csv(file: Path) -> pl.DataFrame:
    with file.open("rb") as opened:
        head = opened.readline()
    try:
        line = head.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not written in UTF-8.", hint="Save it as UTF-8, and try again.") from None
    separator = _separator(line)
    names = next(csv.reader([line], delimiter=separator), [])
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        raise InputError(f"{file} has columns of the same name: {', '.join(again)}.", hint="Name them apart.")
    table = pl.read_csv(file, separator=separator, try_parse_dates=True, infer_schema_length=None)
    return table.rename(dict(zip(table.columns, names, strict=True))) if len(names) == table.width else table


def _separator(line: str) -> str:
    return max(_SEPARATORS, key=line.count)
