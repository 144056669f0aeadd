"""How all tiles of one entity and view lie in one Redis string: the newest of each hop in front, the others behind.

    newest record of each hop ... | how many older ones, room for how many, of each hop ... | each hop's older ones ...

A push almost always meets the newest tiles alone: it reads and writes the front, a few dozen bytes at a fixed place,
whatever the number of hops and however long the history. When a tile is over, its record goes to the end of the older
ones of its hop, which lie in order of tile and have room to grow; where the room is used up, the string is written anew
without the tiles that no longer count. The last hop's room is the end of the string, and takes no memory.

The longest hop comes first. Of a hop without any record the front holds one whose tile is `LEAST`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from tidemill.definitions.catalog import View
from tidemill.online.tile_layout import LEAST, NEWEST, WORD, TileLayout, layouts_of, view_prefix

Bytes = bytes | memoryview

_FORMAT = 2
_NO_TILE = struct.pack("<q", LEAST)
_BROKEN = b"?"
_LEAST_ROOM = 4


@dataclass(frozen=True, kw_only=True)
class TileLog:
    """The tiles of one view: its layouts, the longest hop first, and where each one's records lie."""

    view: View
    layouts: tuple[TileLayout, ...]

    @classmethod
    def of(cls, view: View) -> TileLog:
        return cls(view=view, layouts=layouts_of(view))

    @cached_property
    def heads(self) -> tuple[int, ...]:
        """The byte at which the newest record of each hop begins, and that at which the counts do."""
        return tuple(accumulate((layout.record_bytes for layout in self.layouts), initial=0))

    @cached_property
    def header_bytes(self) -> int:
        return self.heads[-1] + 2 * WORD * len(self.layouts)

    @cached_property
    def digest(self) -> str:
        """Changes with whatever makes stored tiles unreadable or incomplete, so that old ones are not misread."""
        said = (_FORMAT, *(layout.digest for layout in self.layouts))
        return hashlib.sha256(repr(said).encode()).hexdigest()[:10]

    def prefix(self, project: str) -> bytes:
        """What the keys of these tiles start with; the entity's key in Feast's serialization follows."""
        return f"{view_prefix(project, self.view.name)}{self.digest}:".encode()

    def expiry(self, *, forever: bool = False) -> int:
        """Seconds after which the tiles of an entity without new ones are forgotten."""
        return self.layouts[0].expiry(forever=forever)

    def split(self, blob: bytes) -> list[bytes]:
        """Each hop's records in order of tile, one after the other; `?` for each where the value is no such log."""
        start, end = self.header_bytes, len(blob)
        if end < start:
            return [_BROKEN] * len(self.layouts)
        front, found, stop, place = self._front.unpack_from(blob), [], start, 2 * len(self.layouts)
        for tile, head, head_end, size in self._spans:
            count, room = front[place], front[place + 1]
            stop = start + count * size
            if not 0 <= count <= room or stop > end:
                return [_BROKEN] * len(self.layouts)
            found.append(blob[start:stop] + blob[head:head_end] if front[tile] != LEAST else b"")
            start, place = start + room * size, place + 2
        return found if stop == end else [_BROKEN] * len(self.layouts)

    def take(self, blob: Bytes, records: list[Bytes], sizes: list[int], events: list[int | None]) -> bool:
        """`split` without a copy of each hop: whether the value is such a log; then, of each hop, its older records and
        its newest one are added to `records`, their number to `sizes`, and the newest event's time in the newest one to
        `events`."""
        start, end = self.header_bytes, len(blob)
        if end < start:
            return False
        front, stop, place = self._front.unpack_from(blob), start, 2 * len(self.layouts)
        for tile, head, head_end, size in self._spans:
            count, room = front[place], front[place + 1]
            stop = start + count * size
            if not 0 <= count <= room or stop > end:
                return False
            if front[tile] == LEAST:
                records += (b"", b"")
                sizes.append(0)
                events.append(None)
            else:
                records += (blob[start:stop], blob[head:head_end])
                sizes.append(count + 1)
                events.append(front[tile + 1])
            start, place = start + room * size, place + 2
        return stop == end

    def joined(self, logs: Sequence[bytes]) -> bytes:
        """The string of these records, the hops' as `split` gives them; the script of a push writes the same."""
        heads, counts, older = [], [], []
        for hop, (log, size) in enumerate(zip(logs, self._sizes, strict=True)):
            count = max(len(log) // size - 1, 0)
            room = self._room(count, self.layouts[hop].capacity, is_last=hop == len(logs) - 1)
            heads.append(log[-size:] if log else _NO_TILE + bytes(size - WORD))
            counts += [count, room]
            older.append(log[:-size])
            if hop < len(logs) - 1:
                older.append(bytes((room - count) * size))
        return b"".join([*heads, self._counts.pack(*counts), *older])

    @staticmethod
    def _room(count: int, capacity: int, *, is_last: bool) -> int:
        """For how many older records there is room when `count` are written anew; the script of a push says the same.

        As many as the longest window holds and a quarter more, so that rewriting is rare; where room takes memory, at
        most twice `count`.
        """
        most = max(capacity, count + count // 4 + _LEAST_ROOM)
        if is_last:
            return most
        return max(_LEAST_ROOM, min(2 * count, most)) if count else 0

    @cached_property
    def _front(self) -> struct.Struct:
        """The tile of each hop's newest record and its newest event, then the counts."""
        newest = "".join(f"q{(NEWEST - 1) * WORD}xq{size - (NEWEST + 1) * WORD}x" for size in self._sizes)
        return struct.Struct(f"<{newest}{2 * len(self.layouts)}q")

    @cached_property
    def _spans(self) -> tuple[tuple[int, int, int, int], ...]:
        """Of each hop where its tile is in the front, where its newest record begins and ends, and a record's size."""
        tiles = range(0, 2 * len(self._sizes), 2)
        return tuple(zip(tiles, self.heads[:-1], self.heads[1:], self._sizes, strict=True))

    @cached_property
    def _counts(self) -> struct.Struct:
        return struct.Struct(f"<{2 * len(self.layouts)}q")

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(layout.record_bytes for layout in self.layouts)
