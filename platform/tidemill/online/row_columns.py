"""One row's values as columns of one value each, by a function that is written for the columns.

Most of what is left to do for a single row is to make a list for each of its columns. A loop over them takes twice the
time of the same statements one after the other, so they are written out once for each read plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

ColumnsOfRow = Callable[[Sequence[Any]], dict[str, list[Any]]]


def columns_of_row(names: Sequence[str], slots: Sequence[int], width: int) -> ColumnsOfRow:
    """A function of a row of `width` values that makes a column of the value in each of `slots`, under its name."""
    lines = [
        "def columns_of_row(row):",
        f"    {''.join(f'v{slot}, ' for slot in range(width))} = row",
        "    columns = blank()",  # a copy has room for all; a dict that grows is moved several times
        *(f"    columns[{name!r}] = [v{slot}]" for name, slot in zip(names, slots, strict=True)),
        "    return columns",
    ]
    found: dict[str, Any] = {"blank": dict.fromkeys(names).copy}
    exec("\n".join(lines), found)  # noqa: S102 - of nothing but numbers, and names that `repr` has quoted
    return found["columns_of_row"]
