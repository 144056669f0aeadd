"""The script of a push, written for the views of one stream.

Most records are numbers that are added or compared, one word each. For views that hold nothing else the meeting of a
record with the newest tile is written out word by word, which takes Redis a third of the time of a loop over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidemill.online.resp import Script
from tidemill.online.tile_layout import HEADER, NEWEST, SINCE, TILE, WORD
from tidemill.online.tile_log import TileLog

_SOURCE = Path(__file__).with_name("tile_push.lua").read_text()
_PLACE = "-- VIEWS\n"
_FORMATS = {"i": "i8", "a": "i8", "b": "i8", "f": "d", "A": "d", "B": "d"}
_MOST_WORDS = 60  # Lua has 200 local variables for a function, and each word takes two
_BOUNDS = ((">", "HALF"), ("<", "-HALF"))
_MERGES = {
    "i": "a{0} + b{0}",
    "f": "a{0} + b{0}",
    "a": "(b{0} < a{0} and b{0} or a{0})",
    "b": "(b{0} > a{0} and b{0} or a{0})",
    "A": "((b{0} < a{0} or b{0} ~= b{0}) and b{0} or a{0})",
    "B": "((b{0} > a{0} or b{0} ~= b{0}) and b{0} or a{0})",
}


def push_script(logs: Sequence[TileLog], *, forever: bool = False) -> Script:
    """The script that writes into the tiles of these views; it knows them by their numbers, from 1."""
    said = [
        f"hops = {{{', '.join(str(len(log.layouts)) for log in logs)}}}",
        f"lasts = {{{', '.join(repr(str(log.header_bytes - 1)) for log in logs)}}}",
        f"views = function() return {{{', '.join(_view(log, forever=forever) for log in logs)}}} end",
        *(_meeting(number, log) for number, log in enumerate(logs, start=1)),
    ]
    return Script(_SOURCE.replace(_PLACE, "\n".join(said) + "\n"))


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
    kinds = _kinds(log)
    if kinds is None:
        return ""
    lines = [
        f"if header == '' then return others().create(key, {number}, records, at) end",
        f"if #header ~= {log.header_bytes} then return false end",
        *_written_out(number, log, kinds),
        "return true",
    ]
    return "\n  ".join([f"meets[{number}] = function(key, header, records, at)", *lines]) + "\nend"


def _kinds(log: TileLog) -> list[list[str]] | None:
    """How each word of each hop's records is merged; None where that is not one word at a time, or they are many."""
    if log.heads[-1] > _MOST_WORDS * WORD:
        return None
    kinds = []
    for layout in log.layouts:
        ops = [op.split(":") for op in layout.ops.split()]
        if not all(kind in _MERGES for kind, *_ in ops):
            return None
        kinds.append([kind for kind, *_ in ops])
    return kinds


def _written_out(number: int, log: TileLog, kinds: Sequence[Sequence[str]]) -> list[str]:
    """Lua that unpacks both sides into a1, a2, ... and b1, b2, ..., compares tiles and merges the words."""
    formats = [f"i8i8i8{''.join(_FORMATS[kind] for kind in of_hop)}" for of_hop in kinds]
    unpacked = [f"local {_names('a', 0, log.heads[-1] // WORD)} = unpack_('<{''.join(formats)}', header)"]
    compared, news, heads, everything = [], [], [], []
    for hop, (layout, start) in enumerate(zip(log.layouts, log.heads, strict=False), start=1):
        first = start // WORD
        place = f"at[{hop}] * {layout.record_bytes}"
        words = f"unpack_('<{formats[hop - 1]}', records[{hop}], {place} + 1)"
        unpacked.append(f"local {_names('b', first, layout.words)} = {words}")
        mine, reasons = _merged(first, kinds[hop - 1])
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


def _merged(first: int, kinds: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a merged record whose first is the `first`, and what must not be if they are to be right."""
    tile, since, newest = (first + word + 1 for word in (TILE, SINCE, NEWEST))
    merged = [f"a{tile}", "0", f"(b{newest} > a{newest} and b{newest} or a{newest})"]
    reasons = [f"a{since} > now", f"b{since} > now"]
    for number, kind in enumerate(kinds, start=first + HEADER + 1):
        merged.append(_MERGES[kind].format(number))
        if _FORMATS[kind] == "i8":
            reasons += [f"{side}{number} {sign}= {bound}" for side in "ab" for sign, bound in _BOUNDS]
    return merged, reasons


def _names(side: str, first: int, count: int) -> str:
    return ", ".join(f"{side}{number}" for number in range(first + 1, first + count + 1))
