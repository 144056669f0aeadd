"""Writing rows so that the newest fact wins, in whatever order runs, backfills, retries and pushes arrive.

What is stored for a view of an entity carries three instants: when the fact happened (event), when the store could have
known it (known), and when we learned this value of it (learned: the end of a run's interval, the moment of a push). A
row replaces the stored one if its (event, known) is greater, or if they are equal, the value differs and it was not
learned earlier. The comparison and the write are one Lua script over a batch of rows, so that no other writer comes
between; the batches are small, so that readers are not kept waiting. Where most entities are new to Redis, they are
created whole first (see `creation`), and only the rows whose key was there are compared.

Feast's layout: a hash for each entity with a field for each feature, `_ts:{view}` for the event time, and beside them
our `_kt:{view}`: event, known and learned as three big-endian 64-bit integers, in microseconds. A row that Feast wrote
itself has none, or one that does not fit its event time; its known time counts as the earliest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from tidemill.definitions.catalog import Catalog, View
from tidemill.errors import InputError
from tidemill.online.bulk_strings import bulk, key_bulk_pieces
from tidemill.online.columns import Piece, as_declared, feature_pieces, join_rows, micros_of, numbers, timestamps
from tidemill.online.creation import creations
from tidemill.online.keys import hash_field, key_layout, known_field, packed_field, time_field
from tidemill.online.packed import packed_pieces
from tidemill.online.resp import RedisReplyError, RespClient, Script

EVENT_TIME, KNOWN_TIME = "__event_time", "__known_time"

_ROWS_ENCODED = 5_000  # rows turned into bytes at once
_BYTES_ATOMIC = 1_500  # of rows in one script: about a tenth of a millisecond in which a reader waits
_ROWS_CREATED = 100_000  # entities created before what became of them is looked at
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
    few = frame.height <= _FEW_ROWS
    rest = frame
    if not few and _are_mostly_new(client, catalog, view, frame):
        rest = _create(client, catalog, view, frame, learned=learned, layout=layout, expiry=expiry)
    script = _script(view.name, tuple(feature.name for feature in view.features), layout)
    options = (expiry or 0,)
    commands = _commands(catalog, view, rest, script=script, layout=layout, learned=learned, options=options)
    counts = _send(client, script, commands, few=rest.height <= _FEW_ROWS)
    written, unchanged, older = (int(sum(column)) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    created = frame.height - rest.height
    return WriteResult(written=created + written, unchanged=unchanged, skipped_older=older, null_keys=nulls)


def _are_mostly_new(client: RespClient, catalog: Catalog, view: View, frame: pl.DataFrame) -> bool:
    """Whether Redis lacks the keys of most of a few rows, taken from everywhere in the frame."""
    sample = frame[:: max(1, frame.height // _SAMPLE)]
    keys, _ = join_rows(key_bulk_pieces(catalog, view, sample), sample.height)
    there = client.execute(b"*%d\r\n$6\r\nEXISTS\r\n%s" % (sample.height + 1, keys.tobytes()), 1)[0]
    return there < sample.height / 2


def _create(
    client: RespClient,
    catalog: Catalog,
    view: View,
    frame: pl.DataFrame,
    *,
    learned: int,
    layout: str,
    expiry: int | None,
) -> pl.DataFrame:
    """Create the rows whose key is free; the others come back, in their order.

    Whatever a row was refused for, it is compared next, which tells a key that is there from a Redis that is full, or
    from one that knows no RESTORE.
    """
    refused: list[np.ndarray] = []
    done = 0
    while done < frame.height:
        part = frame.slice(done, _ROWS_CREATED)
        replies = _created(client, catalog, view, part, learned=learned, layout=layout, expiry=expiry)
        failed = np.fromiter((reply != b"OK" for reply in replies), dtype=bool, count=len(replies))
        refused.append(done + np.flatnonzero(failed))
        done += len(replies)
        if len(replies) < part.height or failed.mean() > 0.5:
            break
    return pl.concat([frame[np.concatenate(refused)], frame.slice(done)])


def _created(
    client: RespClient,
    catalog: Catalog,
    view: View,
    frame: pl.DataFrame,
    *,
    learned: int,
    layout: str,
    expiry: int | None,
) -> list[Any]:
    """A reply for each row, up to the first that cannot be created in this way."""
    with client.stream() as stream:
        for part in frame.iter_slices(_ROWS_ENCODED):
            event = micros_of(part[EVENT_TIME])
            instants = _instants(part, event, learned)
            commands = creations(catalog, view, part, event=event, instants=instants, layout=layout, expiry=expiry)
            if commands is None:
                break
            stream.send_all(commands)
        return stream.finish(checked=False)


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


Pieces = list[tuple[bytes, int]]
"""Commands, and how many replies they get."""


def _commands(
    catalog: Catalog,
    view: View,
    frame: pl.DataFrame,
    *,
    script: Script,
    layout: str,
    learned: int,
    options: Sequence[Any],
) -> Iterator[Pieces]:
    for part in frame.iter_slices(_ROWS_ENCODED):
        keys, key_starts = join_rows(key_bulk_pieces(catalog, view, part), part.height)
        pieces, spelled = _row_pieces(view, part, layout, learned)
        rows, row_starts = join_rows(pieces, part.height)
        yield _eval_all(script, (keys, key_starts), (rows, row_starts), (spelled, *options))


def _eval_all(
    script: Script, keys: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray], options: Sequence[Any]
) -> Pieces:
    """One EVALSHA for each batch: its keys, the batch's rows as one blob, and what holds for all of them."""
    key_bytes, row_bytes = keys[0].data, rows[0].data
    key_starts, row_starts = keys[1], rows[1]
    count = len(row_starts) - 1
    tail = b"".join(bulk(option) for option in options)
    together = max(1, _BYTES_ATOMIC * count // max(1, len(row_bytes)))
    out: Pieces = []
    for first in range(0, count, together):
        last = min(first + together, count)
        start, end = int(row_starts[first]), int(row_starts[last])
        arguments = 3 + (last - first) + 1 + len(options)
        command = (
            b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n" % (arguments, script.digest.encode()),
            bulk(last - first),
            key_bytes[int(key_starts[first]) : int(key_starts[last])],
            b"$%d\r\n" % (end - start),
            row_bytes[start:end],
            b"\r\n",
            tail,
        )
        out.append((b"".join(command), 1))
    return out


def _send(client: RespClient, script: Script, commands: Iterator[Pieces], *, few: bool) -> list[list[int]]:
    if few:
        return [reply for pieces in commands for reply in _exchange(client, script, pieces)]
    script.load(client)
    with client.stream() as stream:
        for pieces in commands:
            stream.send_all(pieces)
        return stream.finish()


def _exchange(client: RespClient, script: Script, pieces: Pieces) -> list[list[int]]:
    """Writing twice is writing once, so a batch may simply be sent again."""
    packed = b"".join(piece for piece, _ in pieces)
    try:
        return client.write(packed, len(pieces))
    except RedisReplyError as error:
        if not str(error).startswith("NOSCRIPT"):
            raise
    script.load(client)
    return client.write(packed, len(pieces))


def _instants(frame: pl.DataFrame, event: np.ndarray, learned: int) -> list[Piece]:
    """Event, known and learned time of each row, as they are stored."""
    known = frame[KNOWN_TIME].cast(pl.Datetime("us", "UTC")).to_physical().fill_null(_UNKNOWN).to_numpy()
    return [numbers(event, ">i8"), numbers(known, ">i8"), numbers(np.full(frame.height, learned), ">i8")]


def _row_pieces(view: View, frame: pl.DataFrame, layout: str, learned: int) -> tuple[list[Piece], str]:
    """Each row as the script unpacks it: its three instants, and then what the layout stores."""
    event = micros_of(frame[EVENT_TIME])
    times = _instants(frame, event, learned)
    if layout == "packed":
        return [*times, *packed_pieces(view, frame)], ">c24I4c0"
    pieces: list[Piece] = [*times, timestamps(event)]
    spelled = ">c24Bc0"
    for feature in view.features:
        more, how = feature_pieces(feature.dtype, frame[feature.name])
        pieces += more
        spelled += how
    return pieces, spelled


@lru_cache(maxsize=512)
def _script(view: str, features: tuple[str, ...], layout: str) -> Script:
    return Script(_packed_script(view) if layout == "packed" else _feast_script(view, features))


def _literal(raw: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in raw) + '"'


_HEAD = """
local unpack_row, call = struct.unpack, redis.call
local blob, spelled, expiry = ARGV[1], ARGV[2], tonumber(ARGV[3])
local place, written, unchanged, older = 1, 0, 0, 0

local function renew(key)
  if expiry > 0 then call('EXPIRE', key, expiry) else call('PERSIST', key) end
end
"""

_EVENT_OF = """
local function event_of(stamp)
  local parts, i = {[8] = 0, [16] = 0}, 1
  while i <= #stamp do
    local field, value, inverse, scale, byte = stamp:byte(i), 0, 0, 1, 0
    repeat
      i = i + 1
      byte = stamp:byte(i) or 0
      value = value + byte % 128 * scale
      if scale < 2 ^ 63 then inverse = inverse + (127 - byte % 128) * scale end
      scale = scale * 128
    until byte < 128
    if scale == 2 ^ 70 then value = -inverse - 1 end
    parts[field] = value
    i = i + 1
  end
  return parts[8] * 1000000 + math.floor(parts[16] / 1000)
end
"""

_VERDICT = """
    if event < old_event or (event == old_event and known < old_known) then
      older, keep = older + 1, false
    elseif event == old_event and known == old_known then
      if %(same)s then
        if learned > old_learned then %(relearn)s end
        unchanged, keep = unchanged + 1, false
        renew(key)
      elseif learned < old_learned then
        older, keep = older + 1, false
      end
    end
"""


def _feast_script(view: str, features: Sequence[str]) -> str:
    fields = [_literal(hash_field(view, feature)) for feature in features]
    few = len(fields) <= 40  # Lua allows 200 local names and 250 registers
    values = [f"v{place}" for place in range(len(fields))] if few else []
    pairs = ", ".join(f"{field}, {value}" for field, value in zip(fields, values, strict=False))
    stamps = f"{_literal(time_field(view))}, stamp, {_literal(known_field(view))}, instants"
    new = f"{{{', '.join(values)}}}, 0" if few else "row, 2"
    verdict = _VERDICT % {
        "same": f"same(call('HMGET', key, unpack(fields)), {new})",
        "relearn": f"call('HSET', key, {_literal(known_field(view))}, instants)",
    }
    take = (
        f"local instants, stamp, {', '.join(values)}, after = unpack_row(spelled, blob, place)"
        if few
        else """local row = {unpack_row(spelled, blob, place)}
  local instants, stamp, after = row[1], row[2], table.remove(row)"""
    )
    put = (
        f"call('HSET', key, {stamps}, {pairs})"
        if few
        else f"""local pairs_of = {{{stamps}}}
    for i = 1, #fields do pairs_of[#pairs_of + 1] = fields[i] pairs_of[#pairs_of + 1] = row[i + 2] end
    call('HSET', key, unpack(pairs_of))"""
    )
    return f"""{_HEAD}{_EVENT_OF}
local fields = {{{", ".join(fields)}}}
local function same(old, new, before)
  for i = 1, #fields do if old[i] ~= new[i + before] then return false end end
  return true
end

for i = 1, #KEYS do
  local key, keep = KEYS[i], true
  {take}
  place = after
  local old = call('HMGET', key, {_literal(time_field(view))}, {_literal(known_field(view))})
  if old[1] then
    local event, known, learned = unpack_row('>i8i8i8', instants)
    local old_event, old_known, old_learned = event_of(old[1]), -(2 ^ 63), -(2 ^ 63)
    if old[2] and #old[2] == 24 then
      local noted, old_known_noted, old_learned_noted = unpack_row('>i8i8i8', old[2])
      if noted == old_event then old_known, old_learned = old_known_noted, old_learned_noted end
    end
{verdict}
  end
  if keep then
    {put}
    renew(key)
    written = written + 1
  end
end
return {{written, unchanged, older}}
"""


def _packed_script(view: str) -> str:
    field = _literal(packed_field(view))
    verdict = _VERDICT % {
        "same": "old:sub(25) == values",
        "relearn": f"call('HSET', key, {field}, instants .. values)",
    }
    return f"""{_HEAD}
for i = 1, #KEYS do
  local key, keep = KEYS[i], true
  local instants, values, after = unpack_row(spelled, blob, place)
  place = after
  local old = call('HGET', key, {field})
  if old and #old >= 24 then
    local event, known, learned = unpack_row('>i8i8i8', instants)
    local old_event, old_known, old_learned = unpack_row('>i8i8i8', old)
{verdict}
  end
  if keep then
    call('HSET', key, {field}, instants .. values)
    renew(key)
    written = written + 1
  end
end
return {{written, unchanged, older}}
"""
