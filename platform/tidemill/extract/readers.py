"""Readers, so that most extractions are one line: SQL databases, CSV and Parquet, here or in an object store.

    @extracts(source="orders", contract=ORDERS)
    def orders(start, end):
        return read_sql(os.environ["SHOP_DATABASE"], ORDERS_SQL, {"start": start, "end": end}, schema=ORDERS.schema)

Relative paths are relative to the project's folder. Passwords and query strings of URLs are never shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import SecretStr

from tidemill.clock import as_utc
from tidemill.errors import ConfigurationError, InputError, SourceError, TidemillError, UnavailableError
from tidemill.extract.locations import CSV, PARQUET, Kind, locate

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError

Schema = Mapping[str, pl.DataType]

_YES_AND_NO = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}


def read_sql(
    url: str | SecretStr, query: str, params: Mapping[str, Any] | None = None, *, schema: Schema | None = None
) -> pl.LazyFrame:
    """Ask a database that SQLAlchemy knows; the values of `params` are bound to `:name` in the query, never pasted in.

    Instants are bound with their time zone; SQLite, which has none, gets UTC text (`2013-10-01 00:00:00`) as its own
    `datetime()` writes it. `schema` names the types of columns that the database cannot tell, such as SQLite's
    instants. Raises InputError for a query or parameters that do not fit, UnavailableError where the database does
    not answer; neither shows the password nor the parameters.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    secret = url.get_secret_value() if isinstance(url, SecretStr) else url
    where = _database(secret)
    try:
        engine = create_engine(secret, hide_parameters=True)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigurationError(f"The database {where} cannot be opened: {error}.") from None
    try:
        with engine.connect() as connection:
            bound = {name: _bound(value, engine.dialect.name) for name, value in (params or {}).items()}
            result = connection.execute(text(query), bound)
            frame = _columns(result, schema or {})
    except SQLAlchemyError as error:
        raise _explained(error, where) from None
    finally:
        engine.dispose()
    return _typed(frame.lazy(), schema)


def read_csv(
    path: str | Path,
    *,
    schema: Schema | None = None,
    known: str | None = None,
    between: tuple[datetime, datetime] | None = None,
    **options: Any,
) -> pl.LazyFrame:
    """A CSV file, or several (`exports/*.csv`), of this machine or an object store (`s3://bucket/orders/*.csv`).

    `known` and `between=(start, end)` keep the rows that became known in the interval, `start` included; a row without
    that time belongs to no interval. `schema` names the types of columns; without it they are guessed from each file.
    Other options are those of `polars.scan_csv`, such as `separator`, `null_values` and `storage_options`.
    """
    # What is written in many ways is read as text first: Polars guesses its form, or refuses, by the first rows.
    plain = {name: pl.String() if _is_written_in_many_ways(dtype) else dtype for name, dtype in (schema or {}).items()}
    frame = _scan(path, CSV, pl.scan_csv, {"schema_overrides": plain, **options})
    return _between(_typed(frame, schema), known, between)


def read_parquet(
    path: str | Path,
    *,
    schema: Schema | None = None,
    known: str | None = None,
    between: tuple[datetime, datetime] | None = None,
    **options: Any,
) -> pl.LazyFrame:
    """Parquet files or folders, of this machine or an object store; only what the interval needs is read.

    See `read_csv`; other options are those of `polars.scan_parquet`.
    """
    return _between(_typed(_scan(path, PARQUET, pl.scan_parquet, options), schema), known, between)


def _scan(path: str | Path, kind: Kind, scan: Any, options: dict[str, Any]) -> pl.LazyFrame:
    located = locate(path, kind, options.get("storage_options") or {})
    if isinstance(located.found, list):
        options.pop("storage_options", None)
    if located.partitioned and kind is PARQUET:
        options.setdefault("hive_partitioning", True)
    return scan(located.found, **{"glob": located.glob, **options})


def _between(frame: pl.LazyFrame, known: str | None, between: tuple[datetime, datetime] | None) -> pl.LazyFrame:
    if known is None and between is None:
        return frame
    if known is None or between is None:
        raise InputError("An interval needs both known='column' and between=(start, end).")
    schema = frame.collect_schema()
    if known not in schema:
        raise SourceError(f"There is no column {known!r}; there are {', '.join(schema)}.")
    if schema[known].is_(pl.String):
        frame = frame.with_columns(as_instant(pl.col(known), pl.Datetime("us", "UTC")))
    elif not isinstance(schema[known], pl.Datetime | pl.Date):
        raise SourceError(
            f"Column {known!r} is {schema[known]}, which is no time of which an interval could be told.",
            hint="Convert it first, e.g. seconds since 1970 with pl.from_epoch, and filter by it.",
        )
    zone = getattr(frame.collect_schema()[known], "time_zone", None)
    start, end = (as_utc(moment).astimezone(ZoneInfo(zone or "UTC")) for moment in between)
    if zone is None:
        start, end = start.replace(tzinfo=None), end.replace(tzinfo=None)
    return frame.filter(pl.col(known).is_between(start, end, closed="left"))


def _typed(frame: pl.LazyFrame, schema: Schema | None) -> pl.LazyFrame:
    """Read text as the instants and dates that the schema says it is; other types are told to the reader itself."""
    if not schema:
        return frame
    found = frame.collect_schema()
    return frame.with_columns(
        _cast(pl.col(name), found[name], dtype)
        for name, dtype in schema.items()
        if name in found and found[name] != dtype
    )


def _cast(column: pl.Expr, found: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if found.is_(pl.String) and isinstance(wanted, pl.Datetime):
        return as_instant(column, wanted)
    if found.is_(pl.String) and wanted.is_(pl.Date):
        return column.str.to_date("%Y-%m-%d")
    if found.is_(pl.String) and wanted.is_(pl.Boolean):
        return column.str.strip_chars().str.to_lowercase().replace_strict(_YES_AND_NO, return_dtype=pl.Boolean)
    if found.is_numeric() and (wanted.is_integer() or wanted.is_(pl.Boolean)):
        return column.map_batches(partial(_unchanged, wanted=wanted), return_dtype=wanted, is_elementwise=True)
    if isinstance(found, pl.Datetime) and isinstance(wanted, pl.Datetime):
        return column  # the contract converts it, and sees whether anything would get lost
    return column.cast(wanted)


def _unchanged(values: pl.Series, *, wanted: pl.DataType) -> pl.Series:
    """Numbers as whole ones, or as yes and no. Raises SourceError where that would change one."""
    converted = values.cast(wanted, strict=False)
    changed = values.filter(
        (converted.cast(values.dtype, strict=False) != values).fill_null(value=True) & values.is_not_null()
    )
    if changed.len():
        raise SourceError(
            f"Column {values.name!r} holds {changed[0]}, which is not a value of {wanted}.",
            hint="Correct the schema; nothing is rounded.",
        )
    return converted


def as_instant(column: pl.Expr, wanted: pl.Datetime) -> pl.Expr:
    """Text as instants: ISO 8601 as people and databases write it, with `T` or a space, fractions or not, and `Z`,
    `UTC`, an offset (`+01`, `+0100`, `+01:00`) or nothing for UTC. Anything else is an error when it is collected."""
    plain = column.str.strip_chars().str.replace(r"^(\d{4}-\d{2}-\d{2})[ t]", "${1}T")
    in_utc = plain.str.replace(r"(?i) *(z|utc)$", "+00:00").str.replace(r"(T.*\d) +([+-])", "${1}${2}")
    offset = in_utc.str.replace(r"(T.*[+-]\d{2})$", "${1}:00")
    zoned = pl.when(offset.str.contains(r"T.*[+-]\d{2}:?\d{2}$")).then(offset).otherwise(offset + "+00:00")
    full = zoned.str.replace(r"T(\d{2}:\d{2})([+-])", "T${1}:00${2}")
    dated = full.str.replace(r"^(\d{4}-\d{2}-\d{2})\+", "${1}T00:00:00+")
    moment = dated.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit=wanted.time_unit, time_zone="UTC")
    return moment if wanted.time_zone == "UTC" else _in_zone(moment, wanted.time_zone)


def _in_zone(moment: pl.Expr, zone: str | None) -> pl.Expr:
    return moment.dt.replace_time_zone(None) if zone is None else moment.dt.convert_time_zone(zone)


def _columns(result: Any, schema: Schema) -> pl.DataFrame:
    """The rows of a result as columns, taken in portions so that they are never held twice as Python objects."""
    names = list(result.keys())
    if len(set(names)) < len(names):
        raise InputError(f"The query gives a column twice: {', '.join(names)}.", hint="Name them apart with `as`.")
    # Whole numbers are made afterwards, where it is seen whether one of them is a fraction; Polars would cut it off.
    overrides = {name: dtype for name, dtype in schema.items() if name in names and not _made_later(dtype)}
    parts = [
        pl.DataFrame(
            [tuple(row) for row in rows],
            schema=names,
            schema_overrides=overrides,
            orient="row",
            infer_schema_length=None,
        )
        for rows in result.partitions(100_000)
    ]
    if not parts:
        return pl.DataFrame(schema={name: overrides.get(name, pl.Null()) for name in names})
    return pl.concat(parts, how="vertical_relaxed")


def _is_written_in_many_ways(dtype: pl.DataType) -> bool:
    return dtype.is_temporal() or dtype.is_(pl.Boolean)


def _made_later(dtype: pl.DataType) -> bool:
    return dtype.is_temporal() or dtype.is_integer() or dtype.is_(pl.Boolean)


def _explained(error: SQLAlchemyError, where: str) -> TidemillError:
    from sqlalchemy.exc import DBAPIError, OperationalError

    cause = error.orig if isinstance(error, DBAPIError) else None
    # SQLite files its refusals of a query under the same heading as its troubles with the disk.
    refused = getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if isinstance(error, OperationalError) and not refused:
        return UnavailableError(f"The database {where} does not answer: {cause}.")
    return InputError(f"The query does not fit the database {where}: {cause or str(error).splitlines()[0]}.")


def _bound(value: Any, dialect: str) -> Any:
    if not isinstance(value, datetime):
        return value
    moment = as_utc(value)
    if dialect != "sqlite":
        return moment
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f").removesuffix(".000000")


def _database(url: str) -> str:
    """A database as it may be shown: no password, no query string."""
    from tidemill.metadata.database_url import parsed

    found = parsed(url, name="The database's URL")
    return f"{found.get_backend_name()}://{found.host or ''}/{found.database or ''}"
