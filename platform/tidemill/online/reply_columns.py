"""The replies of one request as columns of values, decoded while the last of them are still on their way.

Redis answers many commands in bursts and works on the rest meanwhile. Whoever waits for it may as well decode what has
come: of a hundred rows only the last burst is left to do when the last byte is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tidemill.online.bulk_numbers import Raw

WORTHWHILE = 16  # replies; below it a block costs more than it saves


class Decoder(Protocol):
    """Makes columns of replies, `width` of them, and says whether it is certain that no feature in them is null."""

    width: int

    def decode(self, replies: Sequence[Raw], /) -> tuple[list[Any], bool]: ...

    def decode_arrays(self, replies: Sequence[Raw], /) -> tuple[list[Any], bool]:
        """The same, where numbers may come as arrays."""
        ...


@dataclass(slots=True)
class GroupColumns:
    """A column for each field of one group; `without_null` if it is certain that no feature among them is null."""

    columns: list[Any]
    without_null: bool = True


class ReplyColumns:
    """`groups` gives the decoder and the number of replies of each group, in the order of the replies."""

    def __init__(self, groups: Sequence[tuple[Decoder, int]]) -> None:
        self._groups = groups
        self._replies: list[Any] | None = None
        self._done = 0
        self._found: list[GroupColumns] = []

    def take(self, replies: list[Any]) -> None:
        """Decode what has come since the last call. `replies` are all so far; another list than the last time means
        that the connection was lost and everything is coming again."""
        if replies is not self._replies:
            self._begin(replies)
        fresh = replies[self._done :]
        if len(fresh) >= WORTHWHILE and set(map(type, fresh)) == {list}:  # a refusal is told when all is there
            self._decode(replies)

    def finish(self, replies: list[Any], *, arrays: bool = False) -> list[GroupColumns]:
        """The columns of each group. All replies are there, and none is a refusal. Numbers may come as `arrays`."""
        if replies is not self._replies:
            self._begin(replies)
        self._decode(replies, arrays=arrays and not self._done)
        return self._found

    def _begin(self, replies: list[Any]) -> None:
        self._replies, self._done = replies, 0
        self._found = [GroupColumns([[] for _ in range(decoder.width)]) for decoder, _ in self._groups]

    def _decode(self, replies: list[Any], *, arrays: bool = False) -> None:
        start, upto = 0, len(replies)
        for found, (decoder, size) in zip(self._found, self._groups, strict=True):
            first, last = max(start, self._done), min(start + size, upto)
            start += size
            if first >= last:
                continue
            decode = decoder.decode_arrays if arrays else decoder.decode
            block, without_null = decode(replies[first:last])
            found.without_null = found.without_null and without_null
            if last - first == size:
                found.columns = block
            else:
                for column, more in zip(found.columns, block, strict=True):
                    column += more
        self._done = upto
