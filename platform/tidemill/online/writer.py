"""Writing rows so that the newest fact wins, in whatever order runs, backfills, retries and pushes arrive.

What is stored for a view of an entity carries three instants: when the fact happened (event), when the store could have
known it (known), and when we learned this value of it (learned: the end of a run's interval, the moment of a push). A
row replaces the stored one if its (event, known) is greater, or if they are equal, the value differs and it was not
learned earlier. The comparison and the write are one Lua script over a batch of rows, so that no other writer comes
between; the batches are small, so that readers are not kept waiting.

Many rows are first tried in the ways that cost Redis less: where most entities are new to it, they are created whole
(see `creation`); those that are there are replaced whole where that is right (see `newest_wins`). What is left is
compared, which is right always.

Feast's layout: a hash for each entity with a field for each feature, `_ts:{view}` for the event time, and beside them
our `_kt:{view}`: event, known and learned as three big-endian 64-bit integers, in microseconds, and four bytes that
name the definition of the view. A row that Feast wrote itself has none, or one that does not fit its event time; its
known time counts as the earliest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.errors import InputError
from tidemill.online.bulk_strings import key_bulk_pieces
from tidemill.online.columns import feature_pieces, timestamps
from tidemill.online.courtesy import nothing_read
from tidemill.online.creation import creations, definition_piece, images
from tidemill.online.declared import as_declared, micros_of
from tidemill.online.keys import key_layout
from tidemill.online.newest_wins import compare_script, reads_of_compare, reads_of_replace, replace_script
from tidemill.online.packed import packed_pieces
from tidemill.online.pieces import Piece, join_rows, numbers
from tidemill.online.resp import RedisReplyError, RespClient, Script
from tidemill.online.script_batches import Joined, with_blob, with_strings

EVENT_TIME, KNOWN_TIME = "__event_time", "__known_time"

_ROWS_ENCODED = 5_000  # rows turned into bytes at once
_BYTES_ATOMIC = 1_500  # of rows in one script: about a tenth of a millisecond in which a reader waits
_BYTES_REPLACED = 3_500  # the same, of whole images
_BYTES_REPLACED_ALONE = 7_000  # where nobody is known to read
_BYTES_AHEAD = 18_432  # of scripts that wait for Redis: a little more than it takes from one client at a time
_ROWS_TRIED = 100_000  # in one of the cheaper ways before what became of them is looked at
_SAMPLE = 100  # rows that tell whether a frame's entities are new
_FEW_ROWS = 2_000  # up to here one round trip is simpler than a stream of them
_UNKNOWN = -(2**63)
_EXPIRY_SLACK = 3_600


@dataclass(frozen=True, kw_only=True)
class WriteResult:
    """What became of the rows. `unchanged` rows were there already; their keys' expiry was renewed all the same."""

    written: int = 0
    unchanged: int = 0
    skipped_older: int = 0
    null_keys: int = 0

    def __add__(self, other: WriteResult) -> WriteResult:
        return WriteResult(
            written=self.written + other.written,
            unchanged=self.unchanged + other.unchanged,
            skipped_older=self.skipped_older + other.skipped_older,
            null_keys=self.null_keys + other.null_keys,
        )


def write_rows(
    client: RespClient,
    catalog: Catalog,
    view: View,
    frame: pl.DataFrame,
    *,
    learned: int,
    layout: str = "feast",
    expires: bool = True,
) -> WriteResult:
    """Write a view's rows under the newest-wins rule.

    Args:
        frame: join keys, features, `__event_time` and `__known_time` (UTC; a null known time loses).
        learned: microseconds since 1970 UTC.
        layout: `feast` or `packed`.
        expires: False leaves the keys without an expiry, for projects that live on a simulated clock.

    Raises InputError where the frame does not fit the view (nothing is written then), OnlineStoreUnavailableError.
    """
    frame, nulls = _with_keys(view, _checked(catalog, view, frame))
    expiry = expiry_seconds(catalog, view) if expires else None
    load = _Load(client=client, catalog=catalog, view=view, learned=learned, layout=layout, expiry=expiry)
    rest, cheap = frame, WriteResult()
    if frame.height > _FEW_ROWS:
        if _are_mostly_new(load, frame):
            rest, cheap = _settled(rest, partial(_created, load))
        if layout == "feast" and rest.height > _FEW_ROWS:
            rest, replaced = _settled(rest, partial(_replaced, load), first=_ROWS_ENCODED)
            cheap += replaced
    return cheap + _compared(load, rest) + WriteResult(null_keys=nulls)


def would_write(
    client: RespClient, catalog: Catalog, view: View, frame: pl.DataFrame, *, learned: int, layout: str = "feast"
) -> WriteResult:
    """What would become of the rows if they were written now, found by the same rule; nothing is changed."""
    frame, nulls = _with_keys(view, _checked(catalog, view, frame))
    load = _Load(client=client, catalog=catalog, view=view, learned=learned, layout=layout, expiry=None)
    return _compared(load, frame, writes=False) + WriteResult(null_keys=nulls)


@dataclass(frozen=True, kw_only=True)
class _Load:
    """What every way of writing a view's rows needs: where they go, in which layout, when they were learned
    (microseconds since 1970 UTC) and after how many seconds Redis drops them (None is never)."""

    client: RespClient
    catalog: Catalog
    view: View
    learned: int
    layout: str
    expiry: int | None

    def keys(self, frame: pl.DataFrame) -> Joined:
        """The keys of the rows as they stand in a command, and where each begins."""
        return join_rows(key_bulk_pieces(self.catalog, self.view, frame), frame.height)

    def instants(self, frame: pl.DataFrame, event: np.ndarray) -> list[Piece]:
        """Event, known and learned time of each row, as they are stored."""
        known = micros_of(frame[KNOWN_TIME], missing=_UNKNOWN)
        return [numbers(event, ">i8"), numbers(known, ">i8"), numbers(np.full(frame.height, self.learned), ">i8")]


def _compared(load: _Load, frame: pl.DataFrame, *, writes: bool = True) -> WriteResult:
    """Compare each row with what is stored, which is right always, and write it or not."""
    features = tuple(feature.name for feature in load.view.features)
    script = compare_script(load.view.name, features, load.layout, writes=writes)
    counts = _send(load.client, script, _commands(load, frame, script), few=frame.height <= _FEW_ROWS)
    written, unchanged, older, _ = (int(sum(column)) for column in zip(*counts, strict=True)) if counts else (0,) * 4
    return WriteResult(written=written, unchanged=unchanged, skipped_older=older)


def _are_mostly_new(load: _Load, frame: pl.DataFrame) -> bool:
    """Whether Redis lacks the keys of most of a few rows, taken from everywhere in the frame."""
    sample = frame[:: max(1, frame.height // _SAMPLE)]
    keys, _ = load.keys(sample)
    there = load.client.execute(b"*%d\r\n$6\r\nEXISTS\r\n%s" % (sample.height + 1, keys.tobytes()), 1)[0]
    return there < sample.height / 2


Attempt = Callable[[pl.DataFrame], tuple[np.ndarray, WriteResult]]
"""Writes rows in a cheaper way: tells which of them are left (bool), and what became of the others. It may stop early,
and then says nothing of the last ones."""


def _settled(frame: pl.DataFrame, attempt: Attempt, *, first: int | None = None) -> tuple[pl.DataFrame, WriteResult]:
    """The rows that an attempt leaves, in their order, and what became of the others.

    It goes on while it settles most rows. Whatever a row was left for, it is compared next, which tells one that is
    there from a Redis that is full, or from one where the cheaper way is not allowed.
    """
    left: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
    done, result = 0, WriteResult()
    while done < frame.height:
        part = frame.slice(done, _ROWS_TRIED if done or first is None else first)
        refused, settled = attempt(part)
        left.append(done + np.flatnonzero(refused))
        done, result = done + len(refused), result + settled
        if len(refused) < part.height or refused.mean() > 0.5:
            break
    return pl.concat([frame[np.concatenate(left)], frame.slice(done)]), result


def _created(load: _Load, frame: pl.DataFrame) -> tuple[np.ndarray, WriteResult]:
    """Create the rows whose key is free, up to the first that cannot be created in this way."""
    with load.client.stream(reads=nothing_read) as stream:
        for part in frame.iter_slices(_ROWS_ENCODED):
            event = micros_of(part[EVENT_TIME])
            commands = creations(
                load.catalog,
                load.view,
                part,
                event=event,
                instants=load.instants(part, event),
                layout=load.layout,
                expiry=load.expiry,
            )
            if commands is None:
                break
            stream.send_all(commands)
        replies = stream.finish(checked=False)
    refused = np.fromiter((reply != b"OK" for reply in replies), dtype=bool, count=len(replies))
    return refused, WriteResult(written=len(refused) - int(refused.sum()))


def _replaced(load: _Load, frame: pl.DataFrame) -> tuple[np.ndarray, WriteResult]:
    """Replace the rows that are newer, where their hash, in Feast's layout, holds this view alone; as far as images can
    be made."""
    script = replace_script(load.view)
    script.load(load.client)
    sizes: list[int] = []
    with load.client.stream(ahead=_BYTES_AHEAD, reads=reads_of_replace) as stream:
        for part in frame.iter_slices(_ROWS_ENCODED):
            event = micros_of(part[EVENT_TIME])
            found = images(load.view, part, event=event, instants=load.instants(part, event))
            if found is None:
                break
            most = _BYTES_REPLACED if stream.gives_way else _BYTES_REPLACED_ALONE
            batches = with_strings(script, load.keys(part), found, ((load.expiry or 0) * 1_000,), most=most)
            sizes += [rows for _, rows in batches]
            stream.send_all([(command, 1) for command, _ in batches])
        replies = stream.finish(checked=False)
    return _left_of(replies, sizes)


def _left_of(replies: list[Any], sizes: list[int]) -> tuple[np.ndarray, WriteResult]:
    """Which rows the replace script left, from its replies to batches of so many rows; all of a batch that failed."""
    left = np.zeros(sum(sizes), dtype=bool)
    start = written = older = 0
    for reply, rows in zip(replies, sizes, strict=True):
        if isinstance(reply, list):
            written, older = written + reply[0], older + reply[1]
            left[[start + place - 1 for place in reply[2:]]] = True
        else:
            left[start : start + rows] = True
        start += rows
    return left, WriteResult(written=written, skipped_older=older)


def expiry_seconds(catalog: Catalog, view: View) -> int | None:
    """How long Redis keeps a key of this view after a write; None is for ever.

    Views with equal keys share a hash, so it lives as long as the longest-lived of them needs. The slack lets a reader
    be told that a value is too old for a while, before it is told that there is none.
    """
    ttls = _ttls(catalog, view)
    if not ttls or not all(ttls):
        return None
    longest = max(ttl.total_seconds() for ttl in ttls)
    return int(longest + max(_EXPIRY_SLACK, longest / 10)) + 1


def _ttls(catalog: Catalog, view: View) -> list[timedelta]:
    layout = key_layout(catalog, view)
    return [other.ttl for other in catalog.views if other.online and key_layout(catalog, other) == layout]


def _checked(catalog: Catalog, view: View, frame: pl.DataFrame) -> pl.DataFrame:
    wanted = [*view.join_keys, *(feature.name for feature in view.features), EVENT_TIME, KNOWN_TIME]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise InputError(
            f"Rows for view {view.name!r} lack {', '.join(map(repr, missing))}; they have {', '.join(frame.columns)}."
        )
    if frame[EVENT_TIME].null_count():
        raise InputError(f"Rows for view {view.name!r} have no event time in {frame[EVENT_TIME].null_count()} rows.")
    types = dict(zip(view.join_keys, catalog.key_types(view), strict=True))
    types |= {feature.name: feature.dtype for feature in view.features}
    return frame.select(wanted).with_columns(
        as_declared(dtype, frame[name]).alias(name) for name, dtype in types.items()
    )


def _with_keys(view: View, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Without the rows that have a null key, and how many those were."""
    if not view.join_keys or not any(frame[name].null_count() for name in view.join_keys):
        return frame, 0
    kept = frame.drop_nulls(list(view.join_keys))
    return kept, frame.height - kept.height


def _commands(load: _Load, frame: pl.DataFrame, script: Script) -> Iterator[list[bytes]]:
    for part in frame.iter_slices(_ROWS_ENCODED):
        pieces, spelled = _row_pieces(load, part)
        rows = join_rows(pieces, part.height)
        yield with_blob(script, load.keys(part), rows, (spelled, load.expiry or 0), most=_BYTES_ATOMIC)


def _send(client: RespClient, script: Script, commands: Iterator[list[bytes]], *, few: bool) -> list[list[int]]:
    if few:
        return [reply for calls in commands for reply in _exchange(client, script, calls)]
    script.load(client)
    with client.stream(ahead=_BYTES_AHEAD, reads=reads_of_compare) as stream:
        for calls in commands:
            stream.send_all([(call, 1) for call in calls])
        return stream.finish()


def _exchange(client: RespClient, script: Script, calls: list[bytes]) -> list[list[int]]:
    """Writing twice is writing once, so a batch may simply be sent again."""
    packed = b"".join(calls)
    try:
        return client.write(packed, len(calls))
    except RedisReplyError as error:
        if not str(error).startswith("NOSCRIPT"):
            raise
    script.load(client)
    return client.write(packed, len(calls))


def _row_pieces(load: _Load, frame: pl.DataFrame) -> tuple[list[Piece], str]:
    """Each row as the script unpacks it: its three instants, and then what the layout stores."""
    event = micros_of(frame[EVENT_TIME])
    times = load.instants(frame, event)
    if load.layout == "packed":
        return [*times, *packed_pieces(load.view, frame)], ">c24I4c0"
    pieces: list[Piece] = [*times, definition_piece(load.view), timestamps(event)]
    spelled = ">c28Bc0"
    for feature in load.view.features:
        more, how = feature_pieces(feature.dtype, frame[feature.name])
        pieces += more
        spelled += how
    return pieces, spelled
