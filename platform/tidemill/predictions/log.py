"""The prediction log: every answer that was given, with what it was computed from.

It is JSON lines in segment files, one file for each process and hour of the project's clock, so that any number of
serving processes write side by side and a reader of some hours opens only their files. A line holds the rows that were
answered together (`batch.py`), or one record. Read back, `keys`, `request`, `features` and `statuses` are JSON texts,
exactly as they were written, whatever types a model's features have. A float that JSON cannot say is the text "NaN",
"Infinity" or "-Infinity".
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from time import monotonic

import orjson
import polars as pl

from tidemill.clock import as_utc, to_micros
from tidemill.errors import UnavailableError
from tidemill.predictions.batch import PREFIX, PredictionBatch, columns_of
from tidemill.predictions.segment import PARQUET_SUFFIX, SUFFIX, Segment, TornLine, hour_of_name, whole_lines

_log = logging.getLogger("tidemill.predictions")

SCHEMA = pl.Schema(
    {
        "prediction_id": pl.String(),
        "model": pl.String(),
        "version": pl.Int64(),
        "service": pl.String(),
        "catalog_digest": pl.String(),
        "at": pl.Datetime("us", "UTC"),
        "id": pl.String(),
        "keys": pl.String(),
        "request": pl.String(),
        "features": pl.String(),
        "statuses": pl.String(),
        "prediction": pl.Float64(),
    }
)
_STORED = pl.Schema({name: pl.Int64() if name == "at" else dtype for name, dtype in SCHEMA.items()})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_MICROS = 3_600_000_000
_UNFINISHED = ".tmp"
_UNREADABLE = (pl.exceptions.PolarsError, orjson.JSONDecodeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class PredictionRecord:
    """One answered row. `at` is microseconds since 1970-01-01 UTC; the JSON fields are JSON objects as text."""

    prediction_id: str
    model: str
    version: int
    service: str
    catalog_digest: str
    at: int
    id: str | None
    keys: str
    request: str
    features: str
    statuses: str
    prediction: float


class PredictionLog:
    """Append-only segments below `folder`. Thread-safe; any number of processes may append and read.

    Args:
        folder: where the segments lie; made when first written to.
        sync: make each append wait until the disk has it. Appends that arrive together share one wait.
        segment_bytes: a segment that has grown beyond this is closed and another begun.
    """

    def __init__(self, folder: Path, *, sync: bool = False, segment_bytes: int = 64 * 2**20) -> None:
        self.folder = folder
        self.sync, self._segment_bytes = sync, segment_bytes
        self._segment: Segment | None = None
        self._writing = threading.Lock()
        self._syncing = threading.Lock()
        self._written = self._synced = 0
        self._lost: list[range] = []  # writes of which nobody can tell whether the disk has them
        self._token, self._pid = _process_token(), os.getpid()
        self._count = self._segments = 0
        self._under_way: dict[int, float] = {}  # by thread, since when

    @property
    def waiting_seconds(self) -> float:
        """How long the disk has kept the append waiting that waits longest; 0 where none is under way."""
        begun = list(self._under_way.values())
        return monotonic() - min(begun) if begun else 0.0

    def new_ids(self, count: int) -> list[str]:
        """Names for the next records, unique over processes and restarts."""
        with self._writing:
            self._renew_after_fork()
            first, self._count = self._count, self._count + count
        return [f"{self._token}-{number:x}" for number in range(first, first + count)]

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Write the records, all of one instant. When this returns, a kill of the process cannot lose them.

        Raises UnavailableError where the disk refuses; then none of the records may be answered.
        """
        if records:
            lines = (orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
            self._append(b"".join(lines), at=records[0].at)

    def append_batch(self, batch: PredictionBatch) -> None:
        """The same for rows that were answered together: encoded once, written in one go."""
        self._append(batch.line(), at=batch.at)

    def scan(
        self, model: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """The records of a model (or of all) with `start <= at < end`, in the order of `at`.

        Columns: prediction_id, model, version, service, catalog_digest, at (microseconds, UTC), id, keys, request,
        features, statuses (the last four JSON objects as text), prediction. A torn last line, left behind by a killed
        process, is skipped and reported as a warning: its answer was never sent; so is a line that the disk has
        damaged. A request that was sent again under the same name counts once, with its last answer: the one that
        arrived.
        """
        parts = [self._read(file, model) for file in self._files(start, end)]
        frame = pl.concat([pl.DataFrame(schema=SCHEMA), *parts])
        return _each_once(frame.filter(*_conditions(model, start, end)).sort("at", maintain_order=True))

    def torn_lines(self) -> list[TornLine]:
        """Lines that killed processes left unfinished."""
        found = []
        for file in self._files(None, None):
            with suppress(FileNotFoundError):  # compacted since the folder was listed
                torn = whole_lines(file)[1] if file.suffix == SUFFIX else None
                found += [torn] if torn is not None else []
        return found

    def compact(self, *, before: datetime) -> list[Path]:
        """Turn the segments of hours that ended by `before` into Parquet files of the same name, which are read many
        times faster. Safe to repeat, beside readers and beside others who do the same.

        Only hours that no process appends to any more may be named. A segment with damaged lines stays as it is, for
        whoever can mend it. Raises UnavailableError where the disk refuses; the records are still there then.
        """
        last = _hour(before - timedelta(hours=1))
        closed = [f for f in self._files(None, None) if f.suffix == SUFFIX and hour_of_name(f) <= last]
        try:
            self._sweep()
            found = [self._compact_one(file) for file in closed if not self._is_open(file)]
            return [file for file in found if file is not None]
        except OSError as error:
            raise UnavailableError(
                f"The prediction log in {self.folder} cannot be compacted: {error.strerror}.",
                hint="No record is lost. Make room or mend the disk.",
            ) from error

    def close(self) -> None:
        with self._writing:
            segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _append(self, lines: bytes, *, at: int) -> None:
        thread = threading.get_ident()
        self._under_way[thread] = monotonic()
        try:
            ticket = self._write(lines, at=at)
            if self.sync:
                self._wait_until_synced(ticket)
        except OSError as error:
            raise UnavailableError(
                f"The prediction log in {self.folder} cannot be written: {error.strerror}.",
                hint="Answers are withheld until it can be; make room or mend the disk.",
            ) from error
        finally:
            del self._under_way[thread]

    def _write(self, lines: bytes, *, at: int) -> int:
        with self._writing:
            self._renew_after_fork()
            try:
                self._segment_for(_hour_of_micros(at)).write(lines)
            except OSError:
                self._abandon_segment()
                raise
            self._written += 1
            return self._written

    def _segment_for(self, hour: str) -> Segment:
        current = self._segment
        if current is not None and (current.hour != hour or current.size >= self._segment_bytes):
            if self.sync:
                current.sync()
            current.close()
            current = None
        if current is None:
            self._segments += 1
            name = f"{hour}-{self._token}-{self._segments:06d}{SUFFIX}"
            current = self._segment = Segment(self.folder / name, hour)
        return current

    def _wait_until_synced(self, ticket: int) -> None:
        """Group commit: whoever holds the lock syncs for everybody who wrote before."""
        with self._syncing:
            if any(ticket in writes for writes in self._lost):
                raise OSError(errno.EIO, "a write beside this one failed", str(self.folder))
            if self._synced >= ticket:
                return
            with self._writing:
                upto = self._written
                sync = None if self._segment is None else self._segment.later_sync()
            try:
                if sync is not None:
                    sync()
            except OSError:
                with self._writing:
                    self._abandon_segment()
                raise
            self._synced = upto

    def _abandon_segment(self) -> None:
        """After a failed write the file may end in half a line; nothing may follow it. For whoever holds `_writing`."""
        segment, self._segment = self._segment, None
        if self.sync and self._synced < self._written:
            self._lost.append(range(self._synced + 1, self._written + 1))
            self._synced = self._written
        if segment is not None:
            segment.close()

    def _renew_after_fork(self) -> None:
        if os.getpid() != self._pid:
            self._token, self._pid = _process_token(), os.getpid()
            self._segment, self._count, self._segments = None, 0, 0

    def _files(self, start: datetime | None, end: datetime | None) -> Iterator[Path]:
        """Segments that may hold records of the interval; a compacted one stands for its lines."""
        if not self.folder.is_dir():
            return
        # Listed twice: a segment that is compacted while the folder is read may be met neither before nor after.
        listed = {*self.folder.iterdir(), *self.folder.iterdir()}
        files = sorted(file for file in listed if file.suffix in (SUFFIX, PARQUET_SUFFIX))
        compacted = {file.stem for file in files if file.suffix == PARQUET_SUFFIX}
        first, last = _hour(start) if start else "", _hour(end) if end else "9"
        for file in files:
            if first <= hour_of_name(file) <= last and not (file.suffix == SUFFIX and file.stem in compacted):
                yield file

    def _read(self, file: Path, model: str | None = None) -> pl.DataFrame:
        if file.suffix == PARQUET_SUFFIX:
            return pl.read_parquet(file)
        try:
            content, torn = whole_lines(file)
        except FileNotFoundError:  # compacted since the folder was listed
            return pl.read_parquet(file.with_suffix(PARQUET_SUFFIX))
        if torn is not None and not self._is_open(file):
            _log.warning("The last line of %s is torn (%d bytes); its answer was never sent.", torn.file, torn.bytes)
        try:
            return parse_lines(content, model=model)
        except _UNREADABLE:
            whole = [line for line in content.splitlines(keepends=True) if is_line(line)]
            _log.warning("%s is damaged: %d of its bytes are skipped.", file, len(content) - sum(map(len, whole)))
            return parse_lines(b"".join(whole), model=model)

    def _is_open(self, file: Path) -> bool:
        segment = self._segment
        return segment is not None and segment.file == file

    def _compact_one(self, file: Path) -> Path | None:
        """None where the segment is damaged, or somebody else has compacted it by now."""
        target = file.with_suffix(PARQUET_SUFFIX)
        fresh = file.with_suffix(f".{_process_token()}{_UNFINISHED}")
        try:
            records = parse_lines(whole_lines(file)[0])
            with fresh.open("wb") as out:
                records.write_parquet(out)
                out.flush()
                os.fsync(out.fileno())  # before the lines go
            fresh.replace(target)
        except FileNotFoundError:
            if target.exists():
                return None
            raise
        except _UNREADABLE as error:
            _log.warning("%s is damaged and stays as it is: %s", file, error, extra={"action": "predictions.damaged"})
            return None
        finally:
            fresh.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        return target

    def _sweep(self) -> None:
        """Remove what compactions that were killed left behind: lines that have been replaced, unfinished files."""
        if not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            stem = file.with_name(file.name.partition(".")[0])
            if file.suffix in (SUFFIX, _UNFINISHED) and stem.with_suffix(PARQUET_SUFFIX).exists():
                file.unlink(missing_ok=True)


def is_line(line: bytes) -> bool:
    """Whether this is a line of the log, as it was written."""
    try:
        parse_lines(line)
    except _UNREADABLE:
        return False
    return True


def parse_lines(content: bytes, *, model: str | None = None) -> pl.DataFrame:
    """Complete lines of a segment as a frame of `SCHEMA`. Batches of other models than `model` are passed over."""
    batches, records = [], []
    for line in content.split(b"\n")[:-1]:
        (batches if line.startswith(PREFIX) else records).append(line)
    parts = [pl.DataFrame(schema=_STORED)]
    if records:
        parts.append(pl.read_ndjson(BytesIO(b"\n".join(records)), schema=_STORED))
    if batches:
        parts.append(pl.DataFrame(columns_of(batches, model=model), schema_overrides=_STORED).select(*_STORED))
    return pl.concat(parts).cast({"at": SCHEMA["at"]})


def _conditions(model: str | None, start: datetime | None, end: datetime | None) -> Iterable[pl.Expr]:
    yield pl.lit(value=True)
    if model is not None:
        yield pl.col("model") == model
    if start is not None:
        yield pl.col("at") >= _instant(start)
    if end is not None:
        yield pl.col("at") < _instant(end)


def _each_once(frame: pl.DataFrame) -> pl.DataFrame:
    if frame["prediction_id"].n_unique() == frame.height:
        return frame
    return frame.unique(["model", "prediction_id"], keep="last", maintain_order=True)


def _instant(at: datetime) -> pl.Expr:
    return pl.lit(to_micros(at), dtype=pl.Int64).cast(SCHEMA["at"])


def _hour(at: datetime) -> str:
    return as_utc(at).strftime("%Y%m%dT%H")


def _hour_of_micros(at: int) -> str:
    return _hour_name(at // _HOUR_MICROS)


@lru_cache(maxsize=16)
def _hour_name(hours: int) -> str:
    """The name of the hour that began so many hours after 1970: asked for with every append, and seldom another."""
    return _hour(_EPOCH + timedelta(hours=hours))


def _process_token() -> str:
    return secrets.token_hex(8)
