"""Rows of one read that are about the same entity: Redis is asked about it once, and its answer is worked out once.

The windows of a busy entity are tens of kilobytes, and many rows are mostly about few of them: the flights of an hour
leave from three airports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """How many `replies` are to come, and which of them is that of each row: None where they are the rows' in order.

    A row without a key has the number after the last reply.
    """

    replies: int
    of_row: Sequence[int] | None = None


def each_once(keys: list[bytes], present: Sequence[int] | None, rows: int) -> tuple[list[bytes], Asked]:
    """Different keys in order of appearance, and what the rows make of the replies.

    Args:
        keys: those of the rows that have one.
        present: which rows these are; None for all of `rows`.
    """
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    if present is None and len(numbers) == len(keys):
        return keys, Asked(replies=len(keys))
    places = range(rows) if present is None else present
    of_row = [len(numbers)] * rows
    for place, key in zip(places, keys, strict=True):
        of_row[place] = numbers[key]
    return list(numbers), Asked(replies=len(numbers), of_row=of_row)
