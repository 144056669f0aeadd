"""A view's history: its source opened for lookups. Pass one finds winners, pass two gathers their features.

Pass one reads keys, event and known times only. Pass two reads the feature columns of just those row groups that hold
a winner. Features are never sorted, joined or copied twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from tidemill.definitions.catalog import Source
from tidemill.definitions.types import ValueType
from tidemill.errors import InvariantError, SourceError
from tidemill.offline.casting import cast_column
from tidemill.offline.chunk_grid import index_chunk
from tidemill.offline.chunk_index import Rows
from tidemill.offline.families import family
from tidemill.offline.files import RowGroup, SourceFiles
from tidemill.offline.gathered import Numbers, Places, in_order, is_number
from tidemill.offline.instants import FOREVER, NEVER, Instants, Unit, finer, is_instant, is_text, to_instants
from tidemill.offline.key_runs import Runs, chunk_starts, first_rows, only
from tidemill.offline.keys import KeyCoder, KeyTypeError
from tidemill.offline.lookup import Chunk, Index, Labels, Lifetime, Winners, find_winners
from tidemill.offline.row_owners import by_owner
from tidemill.offline.run_index import RunIndex
from tidemill.offline.zones import in_known_zones

CHUNK_ROWS = 1 << 20
"""Row groups are taken together up to this many rows: large enough for array work, small enough for the caches."""
_CELLS = 1 << 23
"""How many values one read of feature columns may hold."""
THREADS = max(2, min(4, os.cpu_count() or 2))
"""Readers of one lookup. More would mostly hold more memory: the search itself keeps one core busy."""


@dataclass(frozen=True, kw_only=True)
class TimeColumns:
    """The columns of a source that say when, and the unit in which both compare without loss."""

    event: str
    known: str | None
    unit: Unit


@dataclass(frozen=True, kw_only=True)
class _Share:
    """What a gathering takes from one row group: its rows, and where in the answer they belong."""

    group: RowGroup
    rows: Places
    where: Places


class History:
    """The rows of one source as a view sees them. Raises SourceError for a source of another shape than declared."""

    def __init__(self, source: Source, files: SourceFiles, *, threads: int = THREADS) -> None:
        self.source = source
        self.files = files
        self._threads = threads
        mapping = dict(source.field_mapping)
        event = mapping.get(source.timestamp_field, source.timestamp_field)
        known = None if source.known_field is None else mapping.get(source.known_field, source.known_field)
        files.require([event] if known is None else [event, known])
        self.times = TimeColumns(
            event=event,
            known=known,
            unit=finer(files.unit_of(column) for column in (event, known) if column is not None),
        )
        self._check_times()

    @classmethod
    def open(cls, source: Source, root: Path) -> History:
        return cls(source, SourceFiles.open(source, root))

    def find(
        self, keys: pl.DataFrame, join_keys: Sequence[str], types: Sequence[ValueType], *, asked: Asked, unit: Unit
    ) -> Winners:
        """The winning row of each key at its cut-off. `unit` is that of `asked`, at least as fine as the source's.

        Raises KeyTypeError where `keys` are of another type than declared.
        """
        self.files.require(join_keys)
        coder, codes = KeyCoder.fit(keys, types, rows=len(asked.cutoff))
        labels = Labels(
            codes=codes,
            first_codes=coder.first_codes,
            cutoff=asked.cutoff,
            known_cutoff=asked.known_cutoff,
            lifetime=asked.lifetime,
        )
        wanted = self._that_can_win(asked, coder, list(join_keys), unit)
        return find_winners(self._chunks(coder, join_keys, unit, wanted), labels, threads=self._threads)

    def gather(
        self,
        positions: Places,
        columns: Mapping[str, ValueType | None],
        *,
        order: Places | None = None,
        rows: int | None = None,
    ) -> pl.DataFrame:
        """The columns at these positions, as declared, in their order; null where a position is -1.

        With `order` the i-th goes to row `order[i]` of so many `rows`; rows to which none goes are null.
        """
        self.files.require(columns)
        rows = len(positions) if rows is None else rows
        empty = self._empty(columns)
        held = _held(positions, order, rows)
        if not columns or not held.any():
            return empty.clear(rows) if columns else pl.DataFrame(height=rows)
        numbers = {name: Numbers(rows, dtype) for name, dtype in empty.schema.items() if self._is_number(name, dtype)}
        others = {name: dtype for name, dtype in columns.items() if name not in numbers}
        work: list[_Share] = []
        with ThreadPoolExecutor(self._threads) as readers:
            gathering: list[Future[pl.DataFrame]] = []
            for share in self._by_row_group(positions, order):
                work.append(share)
                gathering.append(readers.submit(self._gather_group, share, numbers, others))
            parts = [done.result() for done in gathering]
        found = {name: column.series(name, held) for name, column in numbers.items()}
        if others:
            where = np.concatenate([share.where for share in work])
            found |= {series.name: series for series in in_order(parts, where, rows)}
        return pl.DataFrame([found[name] for name in columns])

    def instants(self, table: pa.Table, unit: Unit) -> tuple[Instants, Instants | None]:
        """Event and known times of rows that were read."""
        event = self._instants(table, self.times.event, unit)
        return event, None if self.times.known is None else self._instants(table, self.times.known, unit)

    @property
    def time_columns(self) -> list[str]:
        known = [] if self.times.known is None else [self.times.known]
        return list(dict.fromkeys([self.times.event, *known]))

    def _that_can_win(
        self, asked: Asked, coder: KeyCoder, join_keys: list[str], unit: Unit
    ) -> Callable[[RowGroup], bool]:
        """Whether a row group can hold a winner, by its statistics: of a key that asks, at a time somebody may see."""
        if not len(asked.cutoff):
            return lambda _group: False
        first = NEVER if asked.lifetime is None else asked.lifetime.oldest
        last = int(asked.cutoff.max())

        def can_win(group: RowGroup) -> bool:
            least, greatest = self.files.bounds(group, self.times.event, unit)
            if least > last or greatest < first:
                return False
            codes = self._codes_between([group], coder, join_keys)
            return codes is None or codes[0] < codes[1]

        return can_win

    def _chunks(
        self, coder: KeyCoder, join_keys: Sequence[str], unit: Unit, wanted: Callable[[RowGroup], bool]
    ) -> list[Chunk]:
        return [self._chunk(groups, coder, list(join_keys), unit) for groups in self.grouped(join_keys, wanted)]

    def _chunk(self, groups: list[RowGroup], coder: KeyCoder, join_keys: list[str], unit: Unit) -> Chunk:
        least, greatest = self.bounds(groups, unit)
        return Chunk(
            least=least,
            greatest=greatest,
            first_codes=self._codes_between(groups, coder, join_keys),
            load=lambda: self._index(groups, coder, join_keys, unit),
        )

    def _codes_between(self, groups: list[RowGroup], coder: KeyCoder, join_keys: list[str]) -> tuple[int, int] | None:
        """Which codes of the first key the statistics allow, from the first to before the last; None if any."""
        if not join_keys:
            return None
        bounds = [self.files.key_bounds(group, join_keys[0]) for group in groups]
        known = [bound for bound in bounds if bound is not None]
        if len(known) < len(bounds):
            return None
        return coder.codes_between(min(least for least, _ in known), max(greatest for _, greatest in known))

    def _index(self, groups: list[RowGroup], coder: KeyCoder, join_keys: list[str], unit: Unit) -> Index:
        columns = list(dict.fromkeys([*join_keys, *self.time_columns]))
        table = self.files.read(groups, columns, dictionary=join_keys)
        event, known = self.instants(table, unit)
        try:
            return self._indexed([table.column(key) for key in join_keys], coder, event, known, groups[0].offset)
        except KeyTypeError as error:
            raise SourceError(
                f"A key column ({', '.join(join_keys)}) of source {self.source.name!r} {error}.",
                hint="Correct the entity's value type, or write the source with the declared type.",
            ) from None

    def _indexed(
        self, keys: list[pa.ChunkedArray], coder: KeyCoder, event: Instants, known: Instants | None, offset: int
    ) -> Index:
        """The index that suits these rows. Where keys lie in runs, each run is coded once."""
        runs = _runs(keys, coder, len(event))
        if runs is not None:
            index = RunIndex.of(runs, event, known, offset=offset, size=coder.size)
            if index is not None:
                return index
        codes = coder.codes(keys, len(event)) if runs is None else runs.spread(runs.codes)
        rows = Rows(codes=codes, event=event, known=known, offset=offset, size=coder.size)
        if len(codes) and (codes.min() < 0 or event.min() == NEVER):
            rows = rows.take(np.flatnonzero((codes >= 0) & (event != NEVER)))
        return index_chunk(rows)

    def grouped(self, keys: Sequence[str], wanted: Callable[[RowGroup], bool]) -> Iterator[list[RowGroup]]:
        """Consecutive row groups that are `wanted`, taken together up to CHUNK_ROWS rows.

        Only those whose keys and times are of equal types: files of a source may differ in units, zones and widths.
        """
        columns = [*keys, *self.time_columns]
        together: list[RowGroup] = []
        rows = 0
        for group in self.files.row_groups:
            if not wanted(group):
                continue
            last = together[-1] if together else group
            follows = last is group or last.offset + last.rows == group.offset
            fits = rows + group.rows <= CHUNK_ROWS and follows and self.files.alike(last, group, columns)
            if together and not fits:
                yield together
                together, rows = [], 0
            together.append(group)
            rows += group.rows
        if together:
            yield together

    def bounds(self, groups: list[RowGroup], unit: Unit) -> tuple[int, int]:
        """The least and greatest event time in some row groups, as far as statistics tell."""
        bounds = [self.files.bounds(group, self.times.event, unit) for group in groups]
        return min(least for least, _ in bounds), max(greatest for _, greatest in bounds)

    def _by_row_group(self, positions: Places, order: Places | None) -> Iterator[_Share]:
        """What is asked of each row group that holds any of these positions."""
        groups = self.files.row_groups
        offsets = np.array([group.offset for group in groups])
        for number, places in by_owner(offsets, positions):
            group = groups[number]
            where = _numbered(places) if order is None else order[places]
            yield _Share(group=group, rows=positions[places] - group.offset, where=where)

    def _gather_group(
        self, share: _Share, numbers: Mapping[str, Numbers], others: Mapping[str, ValueType | None]
    ) -> pl.DataFrame:
        """Put the numbers of some rows of a row group where they belong; their other columns are returned.

        Wide row groups are read some columns at a time, so that a few cells are held at once.
        """
        group, rows = share.group, share.rows
        if int(rows.max()) >= group.rows:
            raise InvariantError("A winner lies at a position that the source does not have.")
        done: set[str] = set()
        for name, some, values in self.files.take_as_they_lie(group, numbers, rows):
            numbers[name].put_values(share.where[some], values)
            done.add(name)
        names = [name for name in (*numbers, *others) if name not in done]
        width = max(1, _CELLS // max(1, group.rows))
        parts = []
        for first in range(0, len(names), width):
            table = self.files.read([group], names[first : first + width])
            for name in table.column_names:
                if name in numbers:
                    numbers[name].put(share.where, table.column(name), rows)
            typed = {name: others[name] for name in table.column_names if name in others}
            if typed:
                parts.append(self.typed(table.select(list(typed)), typed, rows))
        return pl.concat(parts, how="horizontal") if parts else pl.DataFrame(height=len(rows))

    def _is_number(self, column: str, wanted: pl.DataType) -> bool:
        """Whether every file stores the column as the wanted numbers."""
        return all(is_number(stored, wanted) for stored in self.files.types_of(column))

    def typed(
        self, table: pa.Table, columns: Mapping[str, ValueType | None], rows: npt.NDArray[np.int64] | None = None
    ) -> pl.DataFrame:
        """Rows that were read, or some, in declared types. Raises SourceError where a value would be lost."""
        if not columns:
            return pl.DataFrame(height=table.num_rows if rows is None else len(rows))
        frame = pl.DataFrame(pl.from_arrow(in_known_zones(table), rechunk=False))
        if rows is not None:
            frame = frame.select(pl.all().gather(pl.Series(rows.astype(np.uint32))))
        return frame.select(
            cast_column(frame[name], dtype, wanted, where=f"source {self.source.name!r}")
            for (name, dtype), wanted in zip(columns.items(), self._empty(columns).dtypes, strict=True)
        )

    def _empty(self, columns: Mapping[str, ValueType | None]) -> pl.DataFrame:
        """No rows of the declared types; a type that Polars has no one name for is as the first file has it."""
        series = []
        for name, dtype in columns.items():
            wanted = None if dtype is None else dtype.polars()
            if wanted is None:
                stored = pa.table({name: pa.array([], self.files.type_of(name))})
                series.append(pl.DataFrame(pl.from_arrow(in_known_zones(stored))).to_series())
            else:
                series.append(pl.Series(name, [], wanted))
        return pl.DataFrame(series)

    def _instants(self, table: pa.Table, column: str, unit: Unit) -> Instants:
        try:
            return to_instants(table.column(column), unit, null=NEVER)
        except ValueError as error:
            raise SourceError(
                f"Column {column!r} of source {self.source.name!r} does not hold times: {error}.",
                hint="Write it as a timestamp.",
            ) from None

    def _check_times(self) -> None:
        for column in self.time_columns:
            dtype = self.files.type_of(column)
            if self.files.rows and not is_instant(dtype) and not is_text(dtype):
                raise SourceError(
                    f"Column {column!r} of source {self.source.name!r} is {family(dtype)} ({dtype}), not a time.",
                    hint="Name the source's timestamp column, or write it as a timestamp.",
                )


def _runs(keys: list[pa.ChunkedArray], coder: KeyCoder, rows: int) -> Runs | None:
    """The runs of equal keys and their codes; None where rows do not lie so."""
    firsts = first_rows(keys)
    if firsts is None:
        return None
    starts = np.concatenate([first + start for first, start in zip(firsts, chunk_starts(keys[0]), strict=True)])
    codes = coder.codes([only(key, firsts) for key in keys], len(starts))
    return Runs(codes=codes, lengths=np.diff(starts, append=rows))


def _numbered(places: Places | slice) -> Places:
    return np.arange(places.start, places.stop) if isinstance(places, slice) else places


def _held(positions: Places, order: Places | None, rows: int) -> npt.NDArray[np.bool_]:
    """Which rows of the answer have a position."""
    found = positions >= 0
    if order is None:
        return found
    held = np.zeros(rows, bool)
    held[order] = found
    if np.count_nonzero(held) != np.count_nonzero(found):
        raise InvariantError("Several values were found for one row of the spine.")
    return held


@dataclass(frozen=True, kw_only=True)
class Asked:
    """When each row asks: cut-offs for event and known time, and how old an event its ttl lets through."""

    cutoff: Instants
    known_cutoff: Instants
    lifetime: Lifetime | None

    @classmethod
    def at(cls, at: Instants, cutoff: Instants, *, ttl: int, filter_known: bool = True) -> Asked:
        """The ttl is counted from `at`, in the same unit; zero means none."""
        cutoff = at if cutoff is at else np.minimum(at, cutoff)
        return cls(
            cutoff=cutoff,
            known_cutoff=cutoff if filter_known else np.full(len(cutoff), FOREVER, np.int64),
            lifetime=Lifetime(at=at, ttl=ttl) if ttl else None,
        )
