"""The script of a push, written for the views of one stream.

Most records are numbers that are added or compared, one word each. For views that hold nothing else the meeting of a
record with the newest tile is written out word by word, which takes Redis a third of the time of a loop over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidemill.online.resp import Script
from tidemill.online.tile_layout import HEADER, NEWEST, SINCE, TILE, WORD, TileLayout
from tidemill.online.tile_log import TileLog

MOST_WORDS = 60  # Lua has 200 local variables for a function, and each word takes two
_FORMATS = {"i": "i8", "a": "i8", "b": "i8", "f": "d", "A": "d", "B": "d"}
_BOUNDS = ((">", "HALF"), ("<", "-HALF"))
_MERGES = {
    "i": "{a} + {b}",
    "f": "{a} + {b}",
    "a": "({b} < {a} and {b} or {a})",
    "b": "({b} > {a} and {b} or {a})",
    "A": "(({b} < {a} or {b} ~= {b}) and {b} or {a})",
    "B": "(({b} > {a} or {b} ~= {b}) and {b} or {a})",
}
_FOLDER = Path(__file__).parent
_PARTS = {"SEEN": "tile_seen.lua", "MERGE": "tile_merge.lua"}


def push_script(logs: Sequence[TileLog], *, forever: bool = False) -> Script:
    """The script that writes into the tiles of these views; it knows them by their numbers, from 1."""
    said = [
        f"hops = {{{', '.join(str(len(log.layouts)) for log in logs)}}}",
        said_of_views(logs, forever=forever),
        *(_meeting(number, log) for number, log in enumerate(logs, start=1)),
    ]
    return Script(script_source("tile_push.lua", VIEWS="\n".join(said)))


def script_source(name: str, **parts: str) -> str:
    """A script's text with these parts in the lines that name them, and those that scripts share."""
    source = (_FOLDER / name).read_text()
    for part, text in (parts | {part: (_FOLDER / file).read_text() for part, file in _PARTS.items()}).items():
        source = source.replace(f"-- {part}\n", f"{text}\n")
    return source


def said_of_views(logs: Sequence[TileLog], *, forever: bool) -> str:
    """Lua that says with which byte the fronts of logs end (`lasts`), and what is to be known of views besides."""
    return (
        f"lasts = {{{', '.join(repr(str(log.header_bytes - 1)) for log in logs)}}}\n"
        f"views = function() return {{{', '.join(_view(log, forever=forever) for log in logs)}}} end"
    )


def _view(log: TileLog, *, forever: bool) -> str:
    """What is to be known of a view besides: a table."""
    hops = ", ".join(
        f"{{at = {at + 1}, size = {layout.record_bytes}, ops = '{layout.ops}', capacity = {layout.capacity}}}"
        for at, layout in zip(log.heads, log.layouts, strict=False)
    )
    said = (
        f"header = {log.header_bytes}, counts = {log.heads[-1] + 1}, "
        f"expiry = '{log.expiry(forever=forever)}', hops = {{{hops}}}"
    )
    return f"{{{said}}}"


def _meeting(number: int, log: TileLog) -> str:
    """A function of an entity's key, the front of its log, the records of each hop and how many come before: it merges
    the next ones into the newest tiles and says true, or false where that takes more."""
    kinds = kinds_of(log)
    if kinds is None:
        return ""
    lines = [
        f"if header == '' then return others().create(key, {number}, records, at) end",
        f"if #header ~= {log.header_bytes} then return false end",
        *_written_out(number, log, kinds),
        "return true",
    ]
    return "\n  ".join([f"meets[{number}] = function(key, header, records, at)", *lines]) + "\nend"


def kinds_of(log: TileLog) -> list[str] | None:
    """How each word of each hop's records is merged; None where that is not one word at a time, or they are many."""
    if log.heads[-1] > MOST_WORDS * WORD:
        return None
    kinds = [layout_kinds(layout) for layout in log.layouts]
    return None if None in kinds else kinds  # type: ignore[return-value]


def layout_kinds(layout: TileLayout) -> str | None:
    """The same for the records of one hop: a letter for each word."""
    kinds = [op.partition(":")[0] for op in layout.ops.split()]
    return "".join(kinds) if all(kind in _MERGES for kind in kinds) else None


def unpacking(kinds: str) -> str:
    """What `struct` calls the words of a record."""
    return f"i8i8i8{''.join(_FORMATS[kind] for kind in kinds)}"


def _written_out(number: int, log: TileLog, kinds: Sequence[str]) -> list[str]:
    """Lua that unpacks both sides into a1, a2, ... and b1, b2, ..., compares tiles and merges the words."""
    formats = [unpacking(of_hop) for of_hop in kinds]
    unpacked = [f"local {names('a', 0, log.heads[-1] // WORD)} = unpack_('<{''.join(formats)}', header)"]
    compared, news, heads, everything = [], [], [], []
    for hop, (layout, start) in enumerate(zip(log.layouts, log.heads, strict=False), start=1):
        first = start // WORD
        place = f"at[{hop}] * {layout.record_bytes}"
        words = f"unpack_('<{formats[hop - 1]}', records[{hop}], {place} + 1)"
        unpacked.append(f"local {names('b', first, layout.words)} = {words}")
        mine, reasons = merged(kinds[hop - 1], first, first)
        tile = first + TILE + 1
        compared.append(
            f"local new{hop} = b{tile} > a{tile}\n  "
            f"if not new{hop} and (a{tile} ~= b{tile} or {' or '.join(reasons)}) then return false end"
        )
        news.append(f"new{hop}")
        record = f"sub(records[{hop}], {place} + 1, {place} + {layout.record_bytes})"
        heads.append(f"new{hop} and {record} or pack('<{formats[hop - 1]}', {', '.join(mine)})")
        everything += mine
    further = f"others().advance(key, header, {number}, {{{', '.join(heads)}}}, {{{', '.join(news)}}})"
    return [
        *unpacked,
        *compared,
        f"if {' or '.join(news)} then return {further} end",
        f"call('SETRANGE', key, '0', pack('<{''.join(formats)}', {', '.join(everything)}))",
    ]


def merged(kinds: str, a: int, b: int) -> tuple[list[str], list[str]]:
    """The words of a record that is merged from two, of which one begins with the word after `a`, the other with that
    after `b`, and what must not be if they are to be right."""
    words = [
        f"a{a + TILE + 1}",
        "0",
        "({b} > {a} and {b} or {a})".format(a=f"a{a + NEWEST + 1}", b=f"b{b + NEWEST + 1}"),
    ]
    reasons = [f"a{a + SINCE + 1} > now", f"b{b + SINCE + 1} > now"]
    for place, kind in enumerate(kinds, start=HEADER + 1):
        sides = (f"a{a + place}", f"b{b + place}")
        words.append(_MERGES[kind].format(a=sides[0], b=sides[1]))
        if _FORMATS[kind] == "i8":
            reasons += [f"{side} {sign}= {bound}" for side in sides for sign, bound in _BOUNDS]
    return words, reasons


def names(side: str, first: int, count: int) -> str:
    """The names of so many words after the `first`, as Lua lists them."""
    return ", ".join(f"{side}{number}" for number in range(first + 1, first + count + 1))
