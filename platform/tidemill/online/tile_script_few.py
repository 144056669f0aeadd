"""The script of a push of a few events, written for the views of one stream that name events alike.

Views often keep the same partials in tiles of the same length, of other entities: an event has one record for each such
*kind* of tiles, which is sent once and unpacked once, and merged into the newest tile of each view word by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.online.resp import Script
from tidemill.online.tile_layout import TILE, WORD, TileLayout
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_script import (
    MOST_WORDS,
    kinds_of,
    layout_kinds,
    merged,
    names,
    said_of_views,
    script_source,
    unpacking,
)

_SETS_OF_IDS = 5  # keys: where ids are remembered, and the sets of four spans


def kinds_of_tiles(logs: Sequence[TileLog]) -> dict[Any, TileLayout]:
    """Of each kind of tiles one layout, those that are merged word by word before the others."""
    found = {alike(layout): layout for log in logs for layout in log.layouts}
    return dict(sorted(found.items(), key=lambda item: layout_kinds(item[1]) is None))


def alike(layout: TileLayout) -> tuple[Any, ...]:
    """Equal for layouts in which the same events make the same records."""
    return (layout.build_shape, layout.hop, layout.longest)


def few_script(logs: Sequence[TileLog], *, remember: int, span: int, has_ids: bool, forever: bool) -> Script:
    """The script that writes events into the tiles of these views.

    Args:
        remember: for how many seconds ids are remembered; `span` is what a set of them covers.
        has_ids: whether the views name events.
    """
    parts = _Parts.of(logs)
    first = (_SETS_OF_IDS if has_ids else 0) + 1
    views = [
        f"local VIEWS, SIZE, SPAN, REMEMBER, FIRST_ENTITY = "
        f"{len(logs)}, {parts.size}, '{span}', {remember}, {first + len(logs)}",
        "local lasts, views",
        said_of_views(logs, forever=forever),
        f"local function kinds() return {{{', '.join(map(parts.said_of, logs))}}} end",
        _locks(first, len(logs)),
    ]
    fronts = [f"front_of(KEYS[place + {number}], '{log.header_bytes - 1}')" for number, log in enumerate(logs)]
    events = [parts.unpacked, *(_written(number, log, parts) for number, log in enumerate(logs, start=1))]
    source = script_source(
        "tile_push_few.lua", VIEWS="\n".join(views), FRONTS="\n".join(fronts), EVENTS="\n".join(events)
    )
    return Script(source)


def _locks(first: int, count: int) -> str:
    """Answers where the tiles of a view are rebuilt."""
    keys = [f"KEYS[{first + number}]" for number in range(count)]
    each = "\n".join(
        f"  if call('EXISTS', {key}) == 1 then return {{2, {n}}} end" for n, key in enumerate(keys, start=1)
    )
    return f"if call('EXISTS', {', '.join(keys)}) > 0 then\n{each}\nend"


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Where an event's records of each kind of tiles lie in what is sent of it: number, first word."""

    places: dict[Any, tuple[int, int]]
    size: int
    unpacked: str
    plain_words: int

    @classmethod
    def of(cls, logs: Sequence[TileLog]) -> _Parts:
        places, words, formats, plain_words = {}, 0, "", 0
        for number, (kind, layout) in enumerate(kinds_of_tiles(logs).items(), start=1):
            places[kind] = (number, words)
            words += layout.words
            kinds = layout_kinds(layout)
            if kinds is not None and words <= MOST_WORDS:
                formats, plain_words = formats + unpacking(kinds), words
        unpacked = f"local {names('b', 0, plain_words)} = unpack_('<{formats}', blob)" if plain_words else ""
        return cls(places=places, size=words * WORD, unpacked=unpacked, plain_words=plain_words)

    def said_of(self, log: TileLog) -> str:
        """The records of a view's hops, as a table."""
        said = []
        for layout in log.layouts:
            number, word = self.places[alike(layout)]
            start = word * WORD
            said.append(f"{{number = {number}, from = {start + 1}, to = {start + layout.record_bytes}}}")
        return f"{{{', '.join(said)}}}"

    def has(self, log: TileLog) -> bool:
        """Whether all records of a view are unpacked."""
        return all(self.places[alike(layout)][1] + layout.words <= self.plain_words for layout in log.layouts)


def _written(number: int, log: TileLog, parts: _Parts) -> str:
    """Lua that merges the event into one view."""
    kinds = kinds_of(log)
    merging = _merging(number, log, parts, kinds) if kinds is not None and parts.has(log) else []
    lines = [
        f"local key, done = KEYS[place + {number}], false",
        "local front = fronts[key]",
        *merging,
        f"if not done then write_slowly({number}, key, front, blob) end",
    ]
    return "\n    ".join(["do", *lines]) + "\n  end"


def _merging(number: int, log: TileLog, parts: _Parts, kinds: Sequence[str]) -> list[str]:
    formats = "".join(map(unpacking, kinds))
    news, sound, heads, everything = [], [], [], []
    for hop, (layout, of_hop, start) in enumerate(zip(log.layouts, kinds, log.heads, strict=False), start=1):
        first, (_, sent) = start // WORD, parts.places[alike(layout)]
        words, reasons = merged(of_hop, first, sent)
        a, b = f"a{first + TILE + 1}", f"b{sent + TILE + 1}"
        news.append(f"{b} > {a}")
        sound.append(f"(new{hop} or {a} == {b} and not ({' or '.join(reasons)}))")
        record = f"sub(blob, {sent * WORD + 1}, {sent * WORD + layout.record_bytes})"
        heads.append(f"new{hop} and {record} or pack('<{unpacking(of_hop)}', {', '.join(words)})")
        everything += words
    new = [f"new{hop}" for hop in range(1, len(news) + 1)]
    return [
        f"if #blob == SIZE and #front == {log.header_bytes} then",
        f"  local {names('a', 0, log.heads[-1] // WORD)} = unpack_('<{formats}', front)",
        f"  local {', '.join(new)} = {', '.join(news)}",
        f"  if {' and '.join(sound)} then",
        f"    if {' or '.join(new)} then",
        f"      done = others().advance(key, front, {number}, {{{', '.join(heads)}}}, {{{', '.join(new)}}})",
        f"      if done then written(key, {number}) end",
        "    else",
        f"      keep(key, pack('<{formats}', {', '.join(everything)}), front)",
        "      done = true",
        "    end",
        "  end",
        "end",
    ]
