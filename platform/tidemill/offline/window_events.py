"""Reading the events behind windows: which columns, which rows, and each event once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

import polars as pl

from tidemill.definitions.catalog import View
from tidemill.definitions.types import ValueType
from tidemill.errors import SourceError
from tidemill.offline.files import SourceFiles
from tidemill.offline.instants import Unit, finer
from tidemill.offline.scan import groups_between, scan_in_pieces, scan_source

EVENT, KNOWN = "__tidemill_event", "__tidemill_known"
PIECE_ROWS = 1_000_000


class TimeFields(TypedDict):
    """The names of a source's event and known times in the definitions."""

    timestamp_field: str
    known_field: str | None


@dataclass(frozen=True, kw_only=True)
class Events:
    """The source of a windowed view, opened. `types` are those declared for columns that folders name."""

    view: View
    files: SourceFiles
    types: Mapping[str, ValueType]

    @property
    def times(self) -> TimeFields:
        source, mapping = self.files.source, dict(self.files.source.field_mapping)
        known = source.known_field
        return {
            "timestamp_field": mapping.get(source.timestamp_field, source.timestamp_field),
            "known_field": None if known is None else mapping.get(known, known),
        }

    @property
    def unit(self) -> Unit:
        """The unit in which the source's times compare without loss."""
        return finer(self.files.unit_of(name) for name in self._time_columns)

    def scan(self, unit: Unit, between: tuple[int, int]) -> pl.LazyFrame:
        """The events, of which those outside a closed range of event times may be left out; both in `unit`."""
        if self.files.files:
            return scan_source(self.files, self.types, unit=unit, between=between)
        nothing = dict.fromkeys(self.value_columns, pl.Null()) | {
            name: self.types[name].polars() or pl.Null() for name in self.view.join_keys
        }
        return pl.LazyFrame(schema=nothing | dict.fromkeys(self._time_columns, pl.Datetime(unit, "UTC")))

    def scan_in_pieces(self, unit: Unit, between: tuple[int, int]) -> Sequence[pl.LazyFrame]:
        """The same, some row groups at a time."""
        if not self.files.files:
            return [self.scan(unit, between)]
        return list(scan_in_pieces(self.files, self.types, unit=unit, between=between, rows=PIECE_ROWS))

    def rows_between(self, between: tuple[int, int], unit: Unit) -> int:
        """How many rows the row groups have that may hold an event of this range."""
        return sum(group.rows for group in groups_between(self.files, between, unit))

    @contextmanager
    def naming_damage(self) -> Iterator[None]:
        """Raise SourceError, naming the file, where reading events fails because one is corrupt."""
        try:
            yield
        except (pl.exceptions.PolarsError, OSError):
            self.files.check_readable([*self.view.join_keys, *self._time_columns, *self.value_columns])
            raise

    @property
    def _time_columns(self) -> list[str]:
        return [name for name in self.times.values() if isinstance(name, str)]

    @property
    def key_types(self) -> list[ValueType]:
        return [self.types[name] for name in self.view.join_keys]

    @property
    def value_columns(self) -> list[str]:
        """What is read beside keys and times."""
        named = [self.view.event_id] if self.view.event_id else []
        return list(dict.fromkeys([*named, *(item.column for item in self.view.aggregations if item.column)]))


def deliveries(
    view: View,
    events: pl.LazyFrame,
    columns: Sequence[str],
    earliest: int,
    at: int,
    timestamp_field: str,
    known_field: str | None,
) -> pl.DataFrame:
    """The events that had happened and were known by `at` and are not older than `earliest`, each once.

    Columns: the join keys (never null), the event id, `columns`, and `EVENT` and `KNOWN` in int64 microseconds.
    """
    schema = events.collect_schema()
    named = [view.event_id] if view.event_id else []
    wanted: list[str] = list(dict.fromkeys([*view.join_keys, *named, *columns]))
    check_columns(view, schema, [timestamp_field, *wanted], known_field)
    time = utc(events, timestamp_field)
    known = time if known_field is None else pl.coalesce(utc(events, known_field), time)
    present = [pl.col(name).is_not_null() for name in view.join_keys]
    inside = events.filter(time.is_between(instant(earliest), instant(at)), known <= instant(at), *present)
    frame = inside.select(*wanted, time.dt.epoch("us").alias(EVENT), known.dt.epoch("us").alias(KNOWN)).collect()
    return frame if view.event_id is None else each_event_once(frame, view.event_id, has_known=True)


def check_columns(view: View, schema: pl.Schema, needed: Sequence[str], known_field: str | None) -> None:
    missing = [name for name in (*needed, *([known_field] if known_field else [])) if name not in schema]
    if missing:
        raise SourceError(
            f"Source {view.source!r} of view {view.name!r} has no column {', '.join(map(repr, missing))}.",
            hint=f"It has: {', '.join(schema.names())}.",
        )


def each_event_once(frame: pl.DataFrame, event_id: str, *, has_known: bool) -> pl.DataFrame:
    """Of several deliveries of one event the one that was known first. A null id names no event."""
    repeated = frame[event_id].is_duplicated() & frame[event_id].is_not_null()
    if not repeated.any():
        return frame
    rows = frame.select(event_id, *([KNOWN] if has_known else [])).with_row_index("row").filter(repeated)
    if has_known:
        rows = rows.sort(KNOWN, maintain_order=True)
    kept = rows.unique(event_id, keep="first")["row"]
    keep = (~repeated).to_numpy().copy()
    keep[kept.to_numpy()] = True
    return frame.filter(pl.Series(keep))


def as_key(view: View, name: str, stored: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """A key column of the events as the spine's keys are: whole numbers are int64, so that no two of them meet.

    Raises SourceError where the source holds keys of another kind.
    """
    column = pl.col(name)
    if stored == wanted:
        return column
    if wanted.is_integer() and (stored.is_integer() or stored in (pl.Boolean, pl.Null)):
        return column.cast(wanted, strict=False)
    if wanted.is_integer() and stored.is_float():
        return pl.when(column == column.floor()).then(column).cast(wanted, strict=False)
    if wanted == pl.String and isinstance(stored, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if stored == pl.Null or (isinstance(wanted, pl.Datetime) and isinstance(stored, pl.Datetime | pl.Date)):
        return column.cast(wanted)
    kind = "whole numbers" if wanted.is_integer() else str(wanted)
    raise SourceError(
        f"A key column ({name}) of source {view.source!r} is {stored}, but the keys are {kind}.",
        hint="Correct the entity's value type, or write the source with the declared type.",
    )


def utc(events: pl.LazyFrame, name: str, unit: Unit = "us") -> pl.Expr:
    dtype, wanted = events.collect_schema()[name], pl.Datetime(unit, "UTC")
    if dtype == wanted:
        return pl.col(name)
    if not isinstance(dtype, pl.Datetime):
        raise SourceError(f"Column {name!r} is {dtype}, expected an instant.", hint="Store it as a timestamp in UTC.")
    aware = pl.col(name) if dtype.time_zone else pl.col(name).dt.replace_time_zone("UTC")
    return aware.cast(wanted)


def instant(at: int, unit: Unit = "us") -> pl.Expr:
    return pl.lit(at, dtype=pl.Int64).cast(pl.Datetime(unit, "UTC"))
